"""Receipts, as both sides keep them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Row, and_, delete, or_, select

from corolla_core.protocol.ids import Address, Hash32, SessionId
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.units import UnixTime
from corolla_core.store.schema import receipts
from corolla_core.store.store import Store

_MAX_INT64 = 2**63 - 1  # a peer chooses these uint64s; the columns only sort by them, the body is exact


class ReceiptLog:
    """Signed receipts by session. Keeping one twice is keeping it once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record_receipt(self, signed: SignedReceipt) -> Address:
        """Keep a receipt; returns who signed it. Raises InvalidSignature, StoreError."""
        signer = signed.signer()
        receipt = signed.receipt
        row = {
            "hash": receipt.hash(),
            "session_id": receipt.session_id,
            "pos_start": min(receipt.pos_start, _MAX_INT64),
            "signer": signer,
            "t_out": min(receipt.t_out, _MAX_INT64),
            "body": msgspec.msgpack.encode(receipt),
            "signature": signed.signature,
        }
        with self._store.transaction() as connection:
            known = connection.execute(select(receipts.c.hash).where(receipts.c.hash == row["hash"])).first()
            if known is None:
                connection.execute(receipts.insert().values(row))
        return signer

    def receipts(self, session: SessionId, *, signer: Address | None = None) -> list[SignedReceipt]:
        """The receipts of a session in order of position, of one signer or of all."""
        query = select(receipts).where(receipts.c.session_id == session)
        if signer is not None:
            query = query.where(receipts.c.signer == signer)
        with self._store.transaction() as connection:
            rows = connection.execute(query.order_by(receipts.c.pos_start, receipts.c.t_out, receipts.c.hash)).all()
        return [_signed(row) for row in rows]

    def receipt(self, receipt_hash: Hash32) -> SignedReceipt | None:
        with self._store.transaction() as connection:
            row = connection.execute(select(receipts).where(receipts.c.hash == receipt_hash)).first()
        return None if row is None else _signed(row)

    def receipts_named(self, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        """Those of these receipts that are kept, in the order of their hashes."""
        query = select(receipts).where(receipts.c.hash.in_(hashes)).order_by(receipts.c.hash)
        with self._store.transaction() as connection:
            return [_signed(row) for row in connection.execute(query).all()]

    def receipts_after(
        self, t_out: int, after: Hash32, *, before: int, limit: int, signer: Address
    ) -> list[SignedReceipt]:
        """One signer's receipts sorted by (`t_out` in Unix milliseconds, hash), from behind this one on, those made
        before `before` (milliseconds) only."""
        t_out, before = min(t_out, _MAX_INT64), min(before, _MAX_INT64)
        later = or_(receipts.c.t_out > t_out, and_(receipts.c.t_out == t_out, receipts.c.hash > after))
        query = select(receipts).where(receipts.c.signer == signer, later, receipts.c.t_out < before)
        with self._store.transaction() as connection:
            rows = connection.execute(query.order_by(receipts.c.t_out, receipts.c.hash).limit(limit)).all()
        return [_signed(row) for row in rows]

    def forget_receipts(self, *, before: UnixTime) -> int:
        """Drop receipts made before a time (the audit window's start); returns how many."""
        with self._store.transaction() as connection:
            return connection.execute(delete(receipts).where(receipts.c.t_out < before * 1000)).rowcount


def _signed(row: Row[tuple[object, ...]]) -> SignedReceipt:
    return SignedReceipt(msgspec.msgpack.decode(row.body, type=Receipt), bytes(row.signature))
