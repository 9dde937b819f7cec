"""Takes to the chain what a validator has found: a disputed node before the jury, what signatures prove."""

from __future__ import annotations

import structlog

from corolla_core.chain.disputes import Accusation, Disputes, Outcome
from corolla_core.chain.faults import Faults, ManifestParts, Punishment
from corolla_core.protocol.errors import TransactionReverted
from corolla_core.protocol.ids import Address, TrancheId
from corolla_core.protocol.provable import BrokenLink, FalseWeights, ProvableFault, kind
from corolla_core.protocol.receipt_chain import Fork
from corolla_core.protocol.units import Nectar
from corolla_validator.payments import Payments
from corolla_validator.ports import Charge, Publications

_log = structlog.get_logger(__name__)

_RECENT = 64
"""How many of the newest disputes are looked at for one over the same node."""


class Prosecutor:
    """`disputes` and `faults` send as the validator; either may be missing on a network."""

    def __init__(
        self,
        disputes: Disputes | None,
        faults: Faults | None,
        payments: Payments,
        published: Publications,
        parts: ManifestParts,
    ) -> None:
        self._disputes = disputes
        self._faults = faults
        self._payments = payments
        self._published = published
        self._parts = parts

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

    async def prove(self, fault: ProvableFault) -> Nectar | None:
        """What it cost the node; None where somebody else has proven it, or there is no contract for it.

        Raises ChainError.
        """
        if self._faults is None:
            return None
        try:
            punished = await self._proof(self._faults, fault)
        except TransactionReverted as error:
            _log.info("the proof was not taken", node=fault.node, fault=kind(fault), why=str(error))
            return None
        return None if punished is None else punished.taken

    async def _proof(self, faults: Faults, fault: ProvableFault) -> Punishment | None:
        match fault:
            case Fork(first, second):
                return await faults.prove_equivocation(first, second)
            case BrokenLink(receipt, upstream):
                return await faults.prove_broken_link(receipt, upstream)
            case FalseWeights(receipt):
                model = await self._published.now()
                return None if model is None else await faults.prove_weights(receipt, model.version, self._parts)

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
