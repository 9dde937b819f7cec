"""The node's store behind its event loop: what `Bookkeeper`, `Paybook` and `Redeemer` ask of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from corolla_core.protocol.errors import InvalidInput, SessionUnknown, VoucherStale
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, SessionId, TrancheId
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher
from corolla_core.store.kept_rows import Place, RowIndex
from corolla_core.store.node_store import NodeStore
from corolla_core.store.nonces import NonceLog
from corolla_core.store.records import Earnings, KeptVoucher, SessionRecord
from corolla_core.store.store import Store
from corolla_node.bookkeeper import Batch, SessionEntry


class Books:
    """One node's books in `store`. Every method runs on the store's own thread."""

    def __init__(self, store: Store, *, payee: Address, model_root: ModelRoot, clock: Callable[[], float]) -> None:
        self._store = store
        self._node = NodeStore(store)
        self._nonces = NonceLog(store)
        self._rows = RowIndex(store)
        self._payee = payee
        self._model_root = model_root
        self._clock = clock

    async def write(self, batch: Batch) -> None:
        """Keep a batch; writing it again does no harm. Raises StoreError."""
        await self._store.run(self._write, batch)

    async def best(self, tranche_id: TrancheId) -> SignedVoucher | None:
        kept = await self._store.run(self._node.best_voucher, tranche_id, self._payee)
        return kept.signed if kept is not None else None

    async def charged(self, tranche_id: TrancheId) -> Nectar:
        return await self._store.run(self._node.charged, tranche_id, self._payee)

    async def claim_nonce(self, nonce: bytes, session: SessionId, client: Address) -> None:
        """Raises NonceReused, StoreError."""
        await self._store.run(lambda: self._nonces.claim(nonce, session, client, now=self._now()))

    async def unredeemed(self) -> list[KeptVoucher]:
        kept = await self._store.run(self._node.best_vouchers)
        return [voucher for voucher in kept if voucher.signed.voucher.payee == self._payee]

    async def redeemed(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None:
        await self._store.run(self._node.mark_redeemed, tranche_id, payee, claimed)

    async def claimed(self, expiring_from: UnixTime) -> list[KeptVoucher]:
        kept = await self._store.run(lambda: self._node.claimed_vouchers(expiring_from=expiring_from))
        return [voucher for voucher in kept if voucher.signed.voucher.payee == self._payee]

    async def unredeemed_again(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None:
        await self._store.run(self._node.unmark_redeemed, tranche_id, payee, claimed)

    async def receipts_after(self, t_out: int, after: Hash32, before: int, limit: int) -> list[SignedReceipt]:
        return await self._store.run(
            lambda: self._node.receipts_after(t_out, after, before=before, limit=limit, signer=self._payee)
        )

    async def receipts_named(self, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        return await self._store.run(self._node.receipts_named, hashes)

    async def forget_receipts(self, retention: float) -> int:
        """Drop receipts older than `retention` seconds, and nonces that none is left of; returns how many receipts.
        Raises StoreError."""
        before = UnixTime(max(0, int(self._clock() - retention)))
        dropped = await self._store.run(lambda: self._node.forget_receipts(before=before))
        await self._store.run(lambda: self._nonces.forget(before=before))
        return dropped

    async def place(self, receipt: Hash32) -> Place | None:
        """Where the rows under a receipt lie."""
        return await self._store.run(self._rows.place, receipt)

    async def last_place(self) -> Place | None:
        return await self._store.run(self._rows.last)

    async def note_places(self, places: Sequence[tuple[Hash32, Place]]) -> None:
        await self._store.run(self._rows.note, places)

    async def forget_places(self, before_segment: int) -> int:
        return await self._store.run(lambda: self._rows.forget(before_segment=before_segment))

    async def earnings(self, since: UnixTime) -> Earnings:
        return await self._store.run(self._node.earnings, since)

    async def close_cut_off(self) -> None:
        """End the sessions that a crash left open."""
        await self._store.run(self._close_cut_off)

    def _write(self, batch: Batch) -> None:
        with self._store.together():
            self._write_all(batch)

    def _write_all(self, batch: Batch) -> None:
        now = self._now()
        for entry in batch.vouchers.values():
            # A stale voucher can only be one that a batch written twice has superseded already.
            with suppress(VoucherStale):
                self._node.record_voucher(entry.signed, entry.leaf, entry.proof, now=now, expiry=entry.expiry)
        for tranche_id, charged in batch.charges.items():
            self._node.record_charge(tranche_id, self._payee, charged)
        for signed in batch.receipts:
            self._node.record_receipt(signed)
        self._rows.note(batch.places)
        for session in batch.sessions:
            self._write_session(session, now)

    def _write_session(self, entry: SessionEntry, now: UnixTime) -> None:
        agreed = entry.agreed
        if entry.ended is None:
            # A client may use a session id again after closing it; the first one's record stays.
            with suppress(InvalidInput):
                self._node.record_session(
                    SessionRecord(agreed.session, agreed.client, agreed.tranche_id, self._model_root, agreed.span, now)
                )
        else:
            tokens, charged, reason = entry.ended
            with suppress(SessionUnknown):
                self._node.close_session(agreed.session, now=now, tokens=tokens, charged=charged, reason=reason)

    def _close_cut_off(self) -> None:
        for record in self._node.sessions(open_only=True, limit=10_000):
            self._node.close_session(
                record.session_id, now=self._now(), tokens=record.tokens, charged=record.charged, reason="cut off"
            )

    def _now(self) -> UnixTime:
        return UnixTime(int(self._clock()))
