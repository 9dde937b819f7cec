"""Takes to the chain what a validator has found: a disputed node before the jury, a fork of receipts to its proof."""

from __future__ import annotations

import structlog

from corolla_core.chain.disputes import Accusation, Disputes, Outcome
from corolla_core.chain.faults import Faults
from corolla_core.protocol.errors import TransactionReverted
from corolla_core.protocol.ids import Address, TrancheId
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.receipt_chain import Fork
from corolla_core.protocol.units import Nectar
from corolla_validator.challenger import Challenger
from corolla_validator.payments import Payments
from corolla_validator.ports import Charge

_log = structlog.get_logger(__name__)

_RECENT = 64
"""How many of the newest disputes are looked at for one over the same node."""


class Prosecutor:
    """`disputes`, `faults` and `challenger` send as the validator; any may be missing on a network."""

    def __init__(
        self, disputes: Disputes | None, faults: Faults | None, payments: Payments, challenger: Challenger | None
    ) -> None:
        self._disputes = disputes
        self._faults = faults
        self._payments = payments
        self._challenger = challenger

    async def accuse(self, charge: Charge) -> int | None:
        """The dispute's id; None where the node already stands accused, or was convicted lately, or there is no jury.

        Raises ChainError.
        """
        disputes = self._disputes
        if disputes is None or await self._stands_accused(disputes, charge.signed.signer()):
            return None
        tranche, harm = await self._harm(charge)
        try:
            return await disputes.accuse(
                Accusation(charge.signed, charge.evidence, tranche_id=tranche, harm=harm),
            )
        except TransactionReverted as error:
            # Another validator was first, or the node has nothing left to lose.
            _log.info("the accusation was not taken", node=charge.signed.signer(), why=str(error))
            return None

    async def prove_fork(self, fork: Fork) -> Nectar | None:
        """What it cost the node; None where somebody else has proven it, or there is no contract for it.

        Raises ChainError.
        """
        if self._faults is None:
            return None
        try:
            return (await self._faults.prove_equivocation(fork.first, fork.second)).taken
        except TransactionReverted as error:
            _log.info("the proof was not taken", node=fork.first.signer(), why=str(error))
            return None

    def demand(self, chain: tuple[SignedReceipt, ...]) -> None:
        if self._challenger is not None:
            self._challenger.demand(chain)

    async def _stands_accused(self, disputes: Disputes, node: Address) -> bool:
        newest = await disputes.count()
        for dispute in range(newest, max(0, newest - _RECENT), -1):
            found = await disputes.dispute(dispute)
            if found.node == node and found.outcome in (Outcome.OPEN, Outcome.FAULTY):
                return True
        return False

    async def _harm(self, charge: Charge) -> tuple[TrancheId | None, Nectar]:
        paid = await self._payments.for_session(charge.signed.signer(), charge.session)
        return (None, Nectar(0)) if paid is None else (paid.tranche_id, paid.amount)
