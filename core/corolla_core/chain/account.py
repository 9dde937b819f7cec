"""What we remember of an account's transactions between sends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.units import Wei

NO_WEI = Wei(0)


@dataclass(frozen=True, slots=True)
class Call:
    """One logical call: what a transaction does, whoever sends it at whatever nonce and fee.

    `to` None deploys a contract. `gas` None means estimate. `about` names it in logs and errors.
    """

    to: Address | None
    data: bytes = b""
    value: Wei = NO_WEI
    gas: int | None = None
    about: str = "transaction"


@dataclass(frozen=True, slots=True)
class Variant:
    """One signed form of a call: same nonce as its siblings, another fee."""

    hash: Hash32
    raw: bytes
    max_fee: int
    tip: int


@dataclass(slots=True)
class PendingCall:
    """A call on its way. All `variants` have the same nonce, so at most one of them is ever mined.

    `in_doubt`: the call may happen, or have happened, without our knowing: an endpoint took a variant, or was given one
    and did not answer. Such a call gets no other nonce until the chain shows that another transaction took this one.
    `copies_count`: the endpoint executes copies of a transaction, so it is offered again only when it has none.
    """

    call: Call
    nonce: int
    gas: int
    variants: list[Variant]
    in_doubt: bool = False
    copies_count: bool = False

    @property
    def latest(self) -> Variant:
        return self.variants[-1]


@dataclass(slots=True)
class AccountState:
    """Nonces in use. `lock` is held from choosing a nonce until an endpoint took or refused the transaction.

    `in_flight` are followed by a running send; `unfollowed` were sent without waiting; `unresolved` were given up with
    their outcome unknown.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_flight: list[PendingCall] = field(default_factory=list)
    unfollowed: list[PendingCall] = field(default_factory=list)
    unresolved: list[PendingCall] = field(default_factory=list)

    def next_nonce(self, chain_count: int) -> int:
        """The first nonce that neither the chain counts as used nor a call of ours holds."""
        held = {p.nonce for p in [*self.in_flight, *self.unfollowed, *self.unresolved]}
        nonce = chain_count
        while nonce in held:
            nonce += 1
        return nonce

    def take_unresolved(self, call: Call) -> PendingCall | None:
        """Take up again a call equal to one whose outcome was never learnt."""
        for pending in self.unresolved:
            if pending.call == call:
                self.unresolved.remove(pending)
                return pending
        return None
