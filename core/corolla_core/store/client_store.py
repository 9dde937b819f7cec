"""What a client must not forget: the tranches it opened and how much it has signed away on each."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, Row, and_, select, update

from corolla_core.protocol.errors import StoreError, TrancheUnknown, VoucherStale
from corolla_core.protocol.ids import Address, Hash32, TrancheId
from corolla_core.protocol.sumtree import Leaf
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.receipts import ReceiptLog
from corolla_core.store.records import ClientTranche
from corolla_core.store.schema import client_tranches, signed_totals


class ClientStore(ReceiptLog):
    """A client's books. A total is raised here before the voucher for it leaves the process, so that a client that
    crashed never signs less than it already promised, nor counts a promise twice."""

    def record_tranche(self, tranche: ClientTranche) -> None:
        """Keep a planned or opened tranche, replacing an earlier plan of the same id.

        Raises StoreError for a plan of a tranche that is open: its row says where money is locked.
        """
        row = {
            "tranche_id": tranche.tranche_id,
            "payer": tranche.payer,
            "signer": tranche.signer,
            "nonce": tranche.nonce,
            "leaves": msgspec.msgpack.encode([(leaf.payee, str(leaf.cap)) for leaf in tranche.leaves]),
            "total": tranche.total,
            "expiry": tranche.expiry,
            "opened_tx": tranche.opened_tx,
            "closed_at": tranche.closed_at,
        }
        here = client_tranches.c.tranche_id == tranche.tranche_id

        def work(connection: Connection) -> None:
            known = connection.execute(select(client_tranches.c.opened_tx).where(here).with_for_update()).first()
            if known is None:
                connection.execute(client_tranches.insert().values(row))
            elif known.opened_tx is not None and tranche.opened_tx is None:
                raise StoreError("this tranche is open already", reason="a plan may not replace an open tranche")
            else:
                connection.execute(update(client_tranches).where(here).values(row))

        self._store.atomically(work)

    def mark_opened(self, tranche_id: TrancheId, tx_hash: Hash32) -> None:
        """Note the transaction that opened a tranche. Raises TrancheUnknown."""
        self._change_tranche(tranche_id, {"opened_tx": tx_hash})

    def mark_closed(self, tranche_id: TrancheId, *, now: UnixTime) -> None:
        """Note that a tranche was reclaimed or its plan dropped. Raises TrancheUnknown."""
        self._change_tranche(tranche_id, {"closed_at": now})

    def tranche(self, tranche_id: TrancheId) -> ClientTranche:
        """Raises TrancheUnknown."""
        query = select(client_tranches).where(client_tranches.c.tranche_id == tranche_id)
        with self._store.transaction() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise TrancheUnknown(tranche_id=tranche_id)
        return _tranche(row)

    def tranches(self, payer: Address | None = None, *, open_only: bool = False) -> list[ClientTranche]:
        """Tranches in order of nonce; `open_only` leaves out those closed."""
        query = select(client_tranches)
        if payer is not None:
            query = query.where(client_tranches.c.payer == payer)
        if open_only:
            query = query.where(client_tranches.c.closed_at.is_(None))
        with self._store.transaction() as connection:
            rows = connection.execute(query.order_by(client_tranches.c.payer, client_tranches.c.nonce)).all()
        return [_tranche(row) for row in rows]

    def raise_signed_total(self, tranche_id: TrancheId, payee: Address, cumulative: Nectar) -> None:
        """Promise `cumulative` in all to a payee. The same again is a no-op; less raises VoucherStale."""
        here = and_(signed_totals.c.tranche_id == tranche_id, signed_totals.c.payee == payee)

        def work(connection: Connection) -> None:
            known = connection.execute(select(signed_totals.c.cumulative).where(here).with_for_update()).scalar()
            if known is None:
                row = {"tranche_id": tranche_id, "payee": payee, "cumulative": cumulative}
                connection.execute(signed_totals.insert().values(row))
            elif known < cumulative:
                connection.execute(update(signed_totals).where(here).values(cumulative=cumulative))
            elif known > cumulative:
                raise VoucherStale(known=known, offered=cumulative)

        self._store.atomically(work)

    def raise_signed_totals(self, totals: Sequence[tuple[TrancheId, Address, Nectar]]) -> None:
        """Several promises in one write to the disk: all of them, or VoucherStale and none."""
        with self._store.together():
            for tranche_id, payee, cumulative in totals:
                self.raise_signed_total(tranche_id, payee, cumulative)

    def signed_total(self, tranche_id: TrancheId, payee: Address) -> Nectar:
        """The most ever promised to a payee on a tranche; 0 when nothing was."""
        return self.signed_totals(tranche_id).get(payee, Nectar(0))

    def signed_totals(self, tranche_id: TrancheId) -> dict[Address, Nectar]:
        query = select(signed_totals.c.payee, signed_totals.c.cumulative)
        with self._store.transaction() as connection:
            rows = connection.execute(query.where(signed_totals.c.tranche_id == tranche_id)).all()
        return {Address(row.payee): Nectar(row.cumulative) for row in rows}

    def _change_tranche(self, tranche_id: TrancheId, change: dict[str, object]) -> None:
        here = client_tranches.c.tranche_id == tranche_id
        with self._store.transaction() as connection:
            if connection.execute(update(client_tranches).where(here).values(change)).rowcount == 0:
                raise TrancheUnknown(tranche_id=tranche_id)


def _tranche(row: Row[tuple[object, ...]]) -> ClientTranche:
    leaves = msgspec.msgpack.decode(row.leaves, type=list[tuple[str, str]])
    return ClientTranche(
        tranche_id=TrancheId(bytes(row.tranche_id)),
        payer=Address(row.payer),
        signer=Address(row.signer),
        nonce=row.nonce,
        leaves=tuple(Leaf(Address(payee), Nectar(int(cap))) for payee, cap in leaves),
        expiry=UnixTime(row.expiry),
        opened_tx=None if row.opened_tx is None else Hash32(bytes(row.opened_tx)),
        closed_at=None if row.closed_at is None else UnixTime(row.closed_at),
    )
