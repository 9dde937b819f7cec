"""What the chain tells of the network, with where it says so: a fold over indexed events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from corolla_core.chain import events as on_chain
from corolla_core.chain.indexer import Indexed
from corolla_core.chain.state import NetworkState, apply
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32


@dataclass(frozen=True, slots=True)
class At:
    """A block, and the transaction in it; None where the index did not note it."""

    block: int
    tx: Hash32 | None


@dataclass(frozen=True, slots=True)
class Penalty:
    """`fault` is a fault's name in ASCII, or the hash of the receipt that a jury judged."""

    node: Address
    amount: int
    fault: Hash32
    at: At


@dataclass(frozen=True, slots=True)
class Earned:
    """`amount` includes what was `burned`."""

    amount: int
    burned: int
    redemptions: int
    last: At


class Ledger:
    """Grows with `add`. After a reorganisation start another one, from all events that are left."""

    def __init__(self, events: Iterable[Indexed] = ()) -> None:
        self.state = NetworkState()
        self.opened: dict[int, At] = {}
        self.concluded: dict[int, At] = {}
        self.challenged: dict[Hash32, At] = {}
        self.penalties: list[Penalty] = []
        self.slashed: dict[Address, int] = {}
        self.earned: dict[Address, Earned] = {}
        for indexed in events:
            self.add(indexed)

    def add(self, indexed: Indexed) -> None:
        event, at = indexed.event, At(indexed.block_number, None if indexed.tx_hash == ZERO_HASH else indexed.tx_hash)
        self.state = apply(self.state, event)
        match event:
            case on_chain.DisputeOpened(id=number):
                self.opened[number] = at
            case on_chain.DisputeConcluded(id=number):
                self.concluded[number] = at
            case on_chain.OpeningChallenged(challenge_id=challenge):
                self.challenged[challenge] = at
            case on_chain.NodeSlashed(node=node, amount=amount, fault=fault):
                self.penalties.append(Penalty(node, amount, fault, at))
                self.slashed[node] = self.slashed.get(node, 0) + amount
            case on_chain.VoucherRedeemed(payee=payee, amount=amount, fee=fee):
                before = self.earned.get(payee, Earned(0, 0, 0, at))
                self.earned[payee] = replace(
                    before,
                    amount=before.amount + amount,
                    burned=before.burned + fee,
                    redemptions=before.redemptions + 1,
                    last=at,
                )
            case _:
                pass
