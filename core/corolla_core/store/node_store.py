"""What a node must not forget: the vouchers it can redeem, what it charged, whom it served."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, bindparam, or_, select, update

from corolla_core.protocol.errors import InvalidInput, SessionUnknown, VoucherOverCap, VoucherStale, VoucherWrongPayee
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, SessionId, TrancheId
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumProof
from corolla_core.protocol.units import MAX_UINT128, Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher, Voucher
from corolla_core.store.receipts import ReceiptLog
from corolla_core.store.records import Earnings, KeptVoucher, SessionRecord
from corolla_core.store.schema import charges, earned_hours, sessions, vouchers

HOUR = 3600
THE_BEGINNING = UnixTime(0)
MAX_REASON = 200


class NodeStore(ReceiptLog):
    """A node's books. When a method has returned, what it wrote survives `kill -9` and power loss."""

    def record_voucher(
        self, signed: SignedVoucher, leaf: Leaf, proof: SumProof, *, now: UnixTime, expiry: UnixTime | None = None
    ) -> Nectar:
        """Keep a voucher if it is worth more than the one kept; returns by how much.

        The very same voucher again is welcome and worth 0. The store checks order, payee and cap; that the signature
        and the branch are good is the caller's to check first. Raises VoucherStale, VoucherOverCap,
        VoucherWrongPayee, StoreError.
        """
        voucher = signed.voucher
        if voucher.payee != leaf.payee:
            raise VoucherWrongPayee(expected=leaf.payee, offered=voucher.payee)
        if voucher.cumulative > leaf.cap:
            raise VoucherOverCap(cap=leaf.cap, offered=voucher.cumulative)
        row = {
            "tranche_id": voucher.tranche_id,
            "payee": voucher.payee,
            "cumulative": voucher.cumulative,
            "receipt_head": voucher.receipt_head,
            "signature": signed.signature,
            "cap": leaf.cap,
            "proof": msgspec.msgpack.encode(proof),
            "expiry": expiry,
            "received_at": now,
        }
        return self._store.atomically(lambda connection: _raise_voucher(connection, signed, row, now=now))

    def best_vouchers(self, *, unredeemed_only: bool = True) -> list[KeptVoucher]:
        """The best voucher of every (tranche, payee), the soonest to expire first."""
        query = select(vouchers)
        if unredeemed_only:
            query = query.where(vouchers.c.claimed < vouchers.c.cumulative)
        with self._store.transaction() as connection:
            rows = connection.execute(query).all()
        kept = [_kept_voucher(row) for row in rows]
        return sorted(kept, key=lambda v: (v.expiry is None, v.expiry or 0, v.signed.voucher.tranche_id))

    def claimed_vouchers(self, *, expiring_from: UnixTime) -> list[KeptVoucher]:
        """What was marked redeemed, in whole or in part, on tranches that expire at that time or later."""
        open_still = or_(vouchers.c.expiry.is_(None), vouchers.c.expiry >= expiring_from)
        query = select(vouchers).where(vouchers.c.claimed > 0, open_still).order_by(vouchers.c.tranche_id)
        with self._store.transaction() as connection:
            return [_kept_voucher(row) for row in connection.execute(query).all()]

    def best_voucher(self, tranche_id: TrancheId, payee: Address) -> KeptVoucher | None:
        with self._store.transaction() as connection:
            row = connection.execute(select(vouchers).where(_key(vouchers, tranche_id, payee))).first()
        return None if row is None else _kept_voucher(row)

    def mark_redeemed(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None:
        """Note what the chain has paid out in all on (tranche, payee). Never lowers; unknown keys are no-ops."""
        grown = and_(_key(vouchers, tranche_id, payee), vouchers.c.claimed < claimed)
        with self._store.transaction() as connection:
            connection.execute(update(vouchers).where(grown).values(claimed=claimed))

    def unmark_redeemed(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None:
        """Set what the chain has paid out after a reorg took a redemption back."""
        with self._store.transaction() as connection:
            connection.execute(update(vouchers).where(_key(vouchers, tranche_id, payee)).values(claimed=claimed))

    def record_charge(self, tranche_id: TrancheId, payee: Address, charged: Nectar) -> None:
        """Note what was charged in all on (tranche, payee). Never lowers."""
        here = _key(charges, tranche_id, payee)
        row = {"tranche_id": tranche_id, "payee": payee, "charged": charged}

        def work(connection: Connection) -> None:
            known = connection.execute(select(charges.c.charged).where(here).with_for_update()).scalar()
            if known is None:
                connection.execute(charges.insert().values(row))
            elif known < charged:
                connection.execute(update(charges).where(here).values(charged=charged))

        self._store.atomically(work)

    def charged(self, tranche_id: TrancheId, payee: Address | None = None) -> Nectar:
        """What was charged in all on a tranche, to one payee or to all; 0 when unknown."""
        where = charges.c.tranche_id == tranche_id if payee is None else _key(charges, tranche_id, payee)
        with self._store.transaction() as connection:
            return Nectar(sum(connection.execute(select(charges.c.charged).where(where)).scalars()))

    def record_session(self, record: SessionRecord) -> None:
        """Keep a session that opened; InvalidInput if its id is already known."""
        row = {
            "session_id": record.session_id,
            "client": record.client,
            "tranche_id": record.tranche_id,
            "model_root": record.model_root,
            "span_start": record.span.start,
            "span_end": record.span.end,
            "opened_at": record.opened_at,
            "closed_at": record.closed_at,
            "tokens": record.tokens,
            "charged": record.charged,
            "reason": record.reason[:MAX_REASON],
        }

        def work(connection: Connection) -> None:
            here = sessions.c.session_id == record.session_id
            if connection.execute(select(sessions.c.session_id).where(here)).first() is not None:
                raise InvalidInput(f"session {record.session_id.hex()} is already recorded")
            connection.execute(sessions.insert().values(row))

        self._store.atomically(work)

    def close_session(
        self, session_id: SessionId, *, now: UnixTime, tokens: int, charged: Nectar, reason: str = "closed"
    ) -> None:
        """Note the end of a session; the first end stays. Raises SessionUnknown."""
        here = sessions.c.session_id == session_id
        end = {"closed_at": now, "tokens": tokens, "charged": charged, "reason": reason[:MAX_REASON]}
        with self._store.transaction() as connection:
            if connection.execute(select(sessions.c.session_id).where(here)).first() is None:
                raise SessionUnknown(session_id=session_id)
            connection.execute(update(sessions).where(here, sessions.c.closed_at.is_(None)).values(end))

    def sessions(self, *, open_only: bool = False, limit: int = 100) -> list[SessionRecord]:
        """The newest sessions first. Right after a start, open ones are those a crash cut off."""
        query = select(sessions)
        if open_only:
            query = query.where(sessions.c.closed_at.is_(None))
        query = query.order_by(sessions.c.opened_at.desc(), sessions.c.session_id).limit(limit)
        with self._store.transaction() as connection:
            return [_session(row) for row in connection.execute(query)]

    def earnings(self, since: UnixTime = THE_BEGINNING) -> Earnings:
        """What came in since a time (rounded down to the hour), and what is still to be redeemed."""
        closed = select(sessions.c.tokens).where(sessions.c.closed_at >= since)
        amounts = select(vouchers.c.cumulative, vouchers.c.claimed)
        hours = select(earned_hours.c.earned).where(earned_hours.c.hour >= since // HOUR)
        with self._store.transaction() as connection:
            tokens = list(connection.execute(closed).scalars())
            kept = connection.execute(amounts).all()
            earned = sum(connection.execute(hours).scalars())
        return Earnings(
            since=since,
            earned=Nectar(earned),
            sessions=len(tokens),
            tokens=sum(tokens),
            redeemed=Nectar(sum(row.claimed for row in kept)),
            unredeemed=Nectar(sum(max(0, row.cumulative - row.claimed) for row in kept)),
            vouchers=len(kept),
        )


# A voucher comes with every chunk of every session: its statements are built once, which halves the time it takes.
_VOUCHER = and_(vouchers.c.tranche_id == bindparam("at_tranche"), vouchers.c.payee == bindparam("at_payee"))
_KNOWN = select(vouchers.c.cumulative, vouchers.c.receipt_head, vouchers.c.signature).where(_VOUCHER).with_for_update()
_INSERT, _RAISE = vouchers.insert(), vouchers.update().where(_VOUCHER)
_HOUR = earned_hours.c.hour == bindparam("at_hour")
_EARNED = select(earned_hours.c.earned).where(_HOUR).with_for_update()
_NEW_HOUR, _RAISE_HOUR = earned_hours.insert(), earned_hours.update().where(_HOUR)


def _raise_voucher(connection: Connection, signed: SignedVoucher, row: dict[str, object], *, now: UnixTime) -> Nectar:
    voucher = signed.voucher
    here = {"at_tranche": voucher.tranche_id, "at_payee": voucher.payee}
    known = connection.execute(_KNOWN, here).first()
    if known is None:
        connection.execute(_INSERT, {**row, "claimed": 0})
        grown = voucher.cumulative
    elif known.cumulative < voucher.cumulative:
        connection.execute(_RAISE, row | here)
        grown = Nectar(voucher.cumulative - known.cumulative)
    elif (known.cumulative, known.receipt_head, known.signature) == (
        voucher.cumulative,
        voucher.receipt_head,
        signed.signature,
    ):
        return Nectar(0)
    else:
        raise VoucherStale(known=known.cumulative, offered=voucher.cumulative)
    _add_earned(connection, now // HOUR, grown)
    return grown


def _add_earned(connection: Connection, hour: int, amount: int) -> None:
    known = connection.execute(_EARNED, {"at_hour": hour}).scalar()
    if known is None:
        connection.execute(_NEW_HOUR, {"hour": hour, "earned": amount})
    else:  # a statistic refuses no money
        connection.execute(_RAISE_HOUR, {"at_hour": hour, "earned": min(known + amount, MAX_UINT128)})


def _key(table: Table, tranche_id: TrancheId, payee: Address) -> ColumnElement[bool]:
    return and_(table.c.tranche_id == tranche_id, table.c.payee == payee)


def _kept_voucher(row: Row[tuple[object, ...]]) -> KeptVoucher:
    voucher = Voucher(
        TrancheId(bytes(row.tranche_id)), Address(row.payee), Nectar(row.cumulative), Hash32(bytes(row.receipt_head))
    )
    return KeptVoucher(
        signed=SignedVoucher(voucher, bytes(row.signature)),
        leaf=Leaf(voucher.payee, Nectar(row.cap)),
        proof=msgspec.msgpack.decode(row.proof, type=SumProof),
        claimed=Nectar(row.claimed),
        expiry=None if row.expiry is None else UnixTime(row.expiry),
        received_at=UnixTime(row.received_at),
    )


def _session(row: Row[tuple[object, ...]]) -> SessionRecord:
    return SessionRecord(
        session_id=SessionId(bytes(row.session_id)),
        client=Address(row.client),
        tranche_id=None if row.tranche_id is None else TrancheId(bytes(row.tranche_id)),
        model_root=ModelRoot(bytes(row.model_root)),
        span=Span(row.span_start, row.span_end),
        opened_at=UnixTime(row.opened_at),
        closed_at=None if row.closed_at is None else UnixTime(row.closed_at),
        tokens=row.tokens,
        charged=Nectar(row.charged),
        reason=row.reason,
    )
