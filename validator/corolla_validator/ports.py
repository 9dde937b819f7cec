"""The seams of the validator: what it needs of the swarm and the chain, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from corolla_core.protocol.ids import Hash32, ModelRoot
from corolla_core.protocol.provable import ProvableFault, Publication
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.transcript import Entry
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement

Clock = Callable[[], float]
"""Seconds since the epoch; `time.time` outside tests."""


class Lookup(Protocol):
    """The part of `Directory` that is asked."""

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]: ...


class Beacons(Protocol):
    """The chain's blocks. Raises ChainError."""

    async def height(self) -> int: ...

    async def hash_at(self, height: int) -> Hash32:
        """The hash of a block that is mined."""
        ...

    async def hurry(self) -> None:
        """A draw waits for a block: on a devnet, where nobody else makes any, have one made."""
        ...


class Nodes(Protocol):
    """Asks nodes. Raises what they refuse with, NetworkError, or MalformedMessage."""

    async def receipts(self, node: Announcement, t_out: int, after: Hash32) -> tuple[list[SignedReceipt], bool]:
        """Its receipts behind (t_out, hash), and whether there are more."""
        ...

    async def named(self, node: Announcement, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        """Those of these receipts that it holds, of its own and of the node before it."""
        ...

    async def open(self, node: Announcement, signed: SignedReceipt) -> Entry:
        """The rows under a receipt, as the node shows them. Raises OpeningUnavailable, InvalidProof."""
        ...


class Publications(Protocol):
    """What the chain says of the model. Raises ChainError."""

    async def now(self, *, within: float = ...) -> Publication | None:
        """What was published, as of `within` seconds ago; None where nothing was."""
        ...


@dataclass(frozen=True, slots=True)
class Charge:
    """What is held against a node: the last receipt of a session judged faulty, the evidence, and the hash of every
    receipt of that session, by which what was paid for it is found."""

    signed: SignedReceipt
    evidence: Hash32
    session: tuple[Hash32, ...]


class Court(Protocol):
    """Takes findings to the chain. Raises ChainError where that is out of reach: then try again."""

    async def accuse(self, charge: Charge) -> int | None:
        """The dispute's id; None where the node stands accused already, or there is no jury."""
        ...

    async def prove(self, fault: ProvableFault) -> Nectar | None:
        """What it cost the node; None where it is proven already, or there is no contract for it."""
        ...


Tell = Callable[[dict[str, object]], None]
"""Takes an event for whoever watches; must not block."""
