"""The contracts of redemptions and openings, as the challenger uses them."""

from __future__ import annotations

from collections.abc import Sequence

from corolla_core.chain.faults import FaultParameters, Faults, Opening, Punishment, Side
from corolla_core.protocol.ids import Address, Hash32, TrancheId
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.units import UnixTime
from corolla_validator.payments import Payments


class ChainRegistrar:
    """`faults` sends as the validator."""

    def __init__(self, faults: Faults, payments: Payments) -> None:
        self._faults = faults
        self._payments = payments

    @property
    def me(self) -> Address:
        return self._faults.sender.address

    async def now(self) -> UnixTime:
        return await self._faults.chain.now()

    async def parameters(self) -> FaultParameters:
        return await self._faults.parameters()

    async def redeemed(self, node: Address, receipts: Sequence[Hash32]) -> tuple[TrancheId, Hash32] | None:
        return await self._payments.head_of(node, receipts)

    async def challenge_opening(
        self, receipt: SignedReceipt, position: int, side: Side, *, tranche: TrancheId, later: Sequence[Receipt]
    ) -> Hash32:
        return await self._faults.challenge_opening(receipt, position, side, tranche=tranche, later=later)

    async def expire_opening(self, challenge: Hash32) -> Punishment | None:
        return await self._faults.expire_opening(challenge)

    async def opening(self, challenge: Hash32) -> Opening:
        return await self._faults.opening(challenge)
