"""What nodes were paid, as the escrow told of it, and for which of the sessions that a validator keeps receipts of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from corolla_core.protocol.ids import Address, Hash32, SessionId, TrancheId
from corolla_core.protocol.units import Nectar
from corolla_core.store.schema import receipts, redemptions
from corolla_core.store.store import Store

SessionAt = tuple[Address, SessionId]
"""One session at one node."""


@dataclass(frozen=True, slots=True)
class RedemptionRecord:
    """One redemption as the escrow told of it: `amount` includes what was `burned`. `cumulative` tells it from the
    others of its payee on its tranche."""

    tranche_id: TrancheId
    payee: Address
    cumulative: int
    receipt_head: Hash32
    amount: Nectar
    burned: Nectar
    block: int


@dataclass(frozen=True, slots=True)
class SessionFees:
    """What redemptions that name a receipt of a session brought its node; `burned` is part of `amount`."""

    amount: Nectar
    burned: Nectar


class FeeStore:
    """Redemptions of everybody. Keeping one twice is keeping it once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record_redemptions(self, found: Sequence[RedemptionRecord]) -> None:
        """Keep redemptions; one kept before stays as it is."""

        def work(connection: Connection) -> None:
            for one in found:
                here = (
                    (redemptions.c.tranche_id == one.tranche_id)
                    & (redemptions.c.payee == one.payee)
                    & (redemptions.c.cumulative == one.cumulative)
                )
                if connection.execute(select(redemptions.c.block).where(here)).first() is None:
                    connection.execute(redemptions.insert().values(_row(one)))

        self._store.atomically(work)

    def newest_redemption(self) -> int | None:
        """The block of the last redemption kept."""
        with self._store.transaction() as connection:
            return connection.execute(select(func.max(redemptions.c.block))).scalar()

    def session_fees(self) -> dict[SessionAt, SessionFees]:
        """What was paid for sessions of which this validator keeps the receipt that a redemption names."""
        query = select(receipts.c.signer, receipts.c.session_id, redemptions.c.amount, redemptions.c.burned).where(
            redemptions.c.receipt_head == receipts.c.hash, redemptions.c.payee == receipts.c.signer
        )
        fees: dict[SessionAt, SessionFees] = {}
        with self._store.transaction() as connection:
            for row in connection.execute(query):
                key = Address(row.signer), SessionId(bytes(row.session_id))
                before = fees.get(key, SessionFees(Nectar(0), Nectar(0)))
                fees[key] = SessionFees(Nectar(before.amount + row.amount), Nectar(before.burned + row.burned))
        return fees


def _row(one: RedemptionRecord) -> dict[str, object]:
    return {
        "tranche_id": one.tranche_id,
        "payee": one.payee,
        "cumulative": one.cumulative,
        "receipt_head": one.receipt_head,
        "amount": one.amount,
        "burned": one.burned,
        "block": one.block,
    }
