"""Takes to the chain what a validator has found: a disputed node before the jury, what signatures prove."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from corolla_core.chain.disputes import Accusation, Disputes, Outcome
from corolla_core.chain.faults import Faults, ManifestParts, Payment, Punishment
from corolla_core.protocol.errors import ConfigError, TransactionReverted
from corolla_core.protocol.ids import Address
from corolla_core.protocol.provable import BrokenLink, FalseWeights, ProvableFault, kind
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.receipt_chain import Fork
from corolla_core.protocol.units import Nectar
from corolla_validator.challenger import Challenger
from corolla_validator.payments import Payments
from corolla_validator.ports import Charge, Paid, Publications, Trial

_log = structlog.get_logger(__name__)

_RECENT = 64
"""How many of the newest disputes are looked at for one over the same node."""
_UNDECIDED = (Outcome.DRAW, Outcome.UNAVAILABLE)
"""What no jury decided over may be brought again."""


class Prosecutor:
    """`disputes`, `faults` and `challenger` send as the validator; any may be missing on a network."""

    def __init__(
        self,
        disputes: Disputes | None,
        faults: Faults | None,
        payments: Payments,
        published: Publications,
        parts: ManifestParts,
        challenger: Challenger | None,
    ) -> None:
        self._disputes = disputes
        self._faults = faults
        self._payments = payments
        self._published = published
        self._parts = parts
        self._challenger = challenger

    async def paid(self, charge: Charge) -> Paid | None:
        """What the node has redeemed for what it is charged with, on the tranche that brought it most. Raises
        ChainError."""
        return await self._payments.for_sessions(charge.node, charge.receipts)

    async def accuse(self, charge: Charge, paid: Paid | None) -> Trial | None:
        """Of its sessions the first one is brought that no jury has decided over: validators that judged the same ones
        bring the same one, and the contract takes that once. Raises ChainError.
        """
        disputes = self._disputes
        if disputes is None:
            return None
        stands = await self._stands(disputes, charge.node)
        if stands is not None:
            return stands
        for count in charge.counts:
            over = await disputes.dispute_over(charge.node, count.signed.receipt.hash())
            if over is None or (await disputes.dispute(over)).outcome in _UNDECIDED:
                break
        else:
            return None
        tranche, harm = (None, Nectar(0)) if paid is None else (paid.tranche_id, paid.amount)
        accusation = Accusation(count.signed, count.evidence, tranche_id=tranche, harm=harm)
        try:
            return Trial(await disputes.accuse(accusation), ours=True)
        except TransactionReverted as error:
            # Another validator was first, or the node has nothing left to lose.
            _log.info("the accusation was not taken", peer=charge.node, why=str(error))
            return await self._stands(disputes, charge.node)

    async def outcome(self, dispute: int) -> Outcome:
        """Raises ChainError, ConfigError where there is no jury."""
        if self._disputes is None:
            raise ConfigError("this network has no jury")
        return (await self._disputes.dispute(dispute)).outcome

    async def payment(self, node: Address, receipts: Collection[Receipt]) -> Payment | None:
        """Raises ChainError."""
        known = {receipt.hash(): receipt for receipt in receipts}
        found = await self._payments.head_of(node, known.keys())
        return None if found is None else Payment(found[0], known[found[1]])

    async def prove(self, fault: ProvableFault, payment: Payment | None) -> Nectar | None:
        """What it cost the node; None where somebody else has proven it, or there is no contract for it.

        Raises ChainError.
        """
        if self._faults is None:
            return None
        try:
            punished = await self._proof(self._faults, fault, payment)
        except TransactionReverted as error:
            _log.info("the proof was not taken", peer=fault.node, fault=kind(fault), why=str(error))
            return None
        return None if punished is None else punished.taken

    async def _proof(self, faults: Faults, fault: ProvableFault, payment: Payment | None) -> Punishment | None:
        match fault:
            case Fork(first, second):
                return await faults.prove_equivocation(first, second, payment=payment)
            case BrokenLink(receipt, upstream):
                return await faults.prove_broken_link(receipt, upstream, payment=payment)
            case FalseWeights(receipt):
                model = await self._published.now()
                if model is None:
                    return None
                return await faults.prove_weights(receipt, model.version, self._parts, payment=payment)

    def demand(self, chain: tuple[SignedReceipt, ...]) -> None:
        if self._challenger is not None:
            self._challenger.demand(chain)

    async def _stands(self, disputes: Disputes, node: Address) -> Trial | None:
        """The newest dispute in which the node is accused or was convicted."""
        newest = await disputes.count()
        for dispute in range(newest, max(0, newest - _RECENT), -1):
            found = await disputes.dispute(dispute)
            if found.node == node and found.outcome in (Outcome.OPEN, Outcome.FAULTY):
                return Trial(dispute, ours=False)
        return None
