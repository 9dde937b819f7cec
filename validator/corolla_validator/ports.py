"""The seams of the validator: what it needs of the swarm and the chain, and nothing more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from corolla_core.chain.disputes import Outcome as Ruling
from corolla_core.chain.faults import Payment
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, TrancheId
from corolla_core.protocol.provable import ProvableFault, Publication
from corolla_core.protocol.receipt import Receipt, SignedReceipt
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
class Count:
    """One session judged faulty: the last receipt that was judged, the evidence, and the hash of each of its receipts
    with when it was signed (Unix milliseconds)."""

    signed: SignedReceipt
    evidence: Hash32
    receipts: Mapping[Hash32, int]


@dataclass(frozen=True, slots=True)
class Charge:
    """What is held against a node. In the order of the judged receipts' hashes, whoever makes the charge."""

    node: Address
    counts: tuple[Count, ...]

    @property
    def receipts(self) -> frozenset[Hash32]:
        """By which what was paid for them all is found."""
        return frozenset().union(*(count.receipts for count in self.counts))

    @property
    def latest(self) -> frozenset[Hash32]:
        """Those signed since the last session began: who redeems for one of them has redeemed for all before that."""
        began = max(min(count.receipts.values()) for count in self.counts)
        return frozenset(hash_ for count in self.counts for hash_, signed in count.receipts.items() if signed >= began)


@dataclass(frozen=True, slots=True)
class Paid:
    """`amount` is what redemptions on a tranche brought the node, fees included; `heads` are the receipts they
    acknowledged."""

    tranche_id: TrancheId
    amount: Nectar = Nectar(0)  # noqa: RUF009 — an int
    heads: frozenset[Hash32] = frozenset()


@dataclass(frozen=True, slots=True)
class Trial:
    """A dispute, and whether it is ours or another validator's."""

    dispute: int
    ours: bool


class Court(Protocol):
    """Takes findings to the chain. Raises ChainError where that is out of reach: then try again."""

    async def paid(self, charge: Charge) -> Paid | None:
        """What the node has got so far for what it is charged with, from the client that paid most."""
        ...

    async def accuse(self, charge: Charge, paid: Paid | None) -> Trial | None:
        """The dispute that the node stands in now or was convicted in lately; None where no session is left that a jury
        has not decided over, or there is no jury. Who paid is refunded."""
        ...

    async def outcome(self, dispute: int) -> Ruling:
        """How a dispute stands."""
        ...

    async def payment(self, node: Address, receipts: Collection[Receipt]) -> Payment | None:
        """A tranche on which the node has redeemed one of these receipts of a session, and that receipt."""
        ...

    async def prove(self, fault: ProvableFault, payment: Payment | None) -> Nectar | None:
        """What it cost the node; None where it is proven already, or there is no contract for it. Who paid is
        refunded."""
        ...

    def demand(self, chain: tuple[SignedReceipt, ...]) -> None:
        """A node does not open what it signed in this session: have it opened on chain, when that can be done."""
        ...


Known = Callable[[], Awaitable[frozenset[Address]]]
"""The nodes that are newcomers no more. Raises ChainError, StoreError."""

Tell = Callable[[dict[str, object]], None]
"""Takes an event for whoever watches; must not block."""
