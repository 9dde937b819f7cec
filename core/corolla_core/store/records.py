"""What the stores hand out: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, SessionId, TrancheId
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumProof
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher

NOTHING = Nectar(0)


@dataclass(frozen=True, slots=True)
class KeptVoucher:
    """The best voucher of one (tranche, payee) with all that redeeming it takes.

    `claimed` is what the chain was last seen to have paid out on it; `expiry` is None where nobody said.
    """

    signed: SignedVoucher
    leaf: Leaf
    proof: SumProof
    claimed: Nectar
    expiry: UnixTime | None
    received_at: UnixTime

    @property
    def due(self) -> Nectar:
        """What redeeming it now would pay."""
        return Nectar(max(0, self.signed.voucher.cumulative - self.claimed))


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session a node served. `closed_at` is None while it is open, or if the node died in the middle of it."""

    session_id: SessionId
    client: Address
    tranche_id: TrancheId | None
    model_root: ModelRoot
    span: Span
    opened_at: UnixTime
    closed_at: UnixTime | None = None
    tokens: int = 0
    charged: Nectar = NOTHING
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Earnings:
    """What a node earned. `earned`, `sessions` and `tokens` count from `since`; the rest is over all time.

    `earned` is the growth of accepted vouchers, in whole hours; `redeemed + unredeemed` is all that was ever promised.
    """

    since: UnixTime
    earned: Nectar
    sessions: int
    tokens: int
    redeemed: Nectar
    unredeemed: Nectar
    vouchers: int


@dataclass(frozen=True, slots=True)
class ClientTranche:
    """A tranche this client planned, and opened once `opened_tx` is there."""

    tranche_id: TrancheId
    payer: Address
    signer: Address
    nonce: int
    leaves: tuple[Leaf, ...]
    expiry: UnixTime
    opened_tx: Hash32 | None = None
    closed_at: UnixTime | None = None

    def __post_init__(self) -> None:
        if not self.leaves:
            raise InvalidInput("a tranche has a leaf")

    @property
    def total(self) -> Nectar:
        return Nectar(sum(leaf.cap for leaf in self.leaves))
