"""What must survive `kill -9`, written behind the serving path: vouchers at once, charges and receipts soon.

One task writes for the whole node, so that a busy moment costs one transaction instead of one per step. A voucher's
`saved` callback is called only after it is on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from corolla_core.protocol.ids import Hash32, TrancheId
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.sumtree import Leaf, SumProof
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher
from corolla_core.store.kept_rows import Place
from corolla_node.steps import Agreement

_log = structlog.get_logger(__name__)

LAZY_SECONDS = 1.0
RETRY_SECONDS = 1.0
TIDY_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class VoucherEntry:
    signed: SignedVoucher
    leaf: Leaf
    proof: SumProof
    expiry: UnixTime


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """A session when it opens; `ended` is its tokens, what they cost, and why it ended."""

    agreed: Agreement
    ended: tuple[int, Nectar, str] | None = None


@dataclass(slots=True)
class Batch:
    """What one write keeps. Vouchers and charges are the newest of their tranche."""

    vouchers: dict[TrancheId, VoucherEntry] = field(default_factory=dict)
    charges: dict[TrancheId, Nectar] = field(default_factory=dict)
    receipts: list[SignedReceipt] = field(default_factory=list)
    places: list[tuple[Hash32, Place]] = field(default_factory=list)
    sessions: list[SessionEntry] = field(default_factory=list)
    saved: list[Callable[[], None]] = field(default_factory=list)

    def before(self, newer: Batch) -> Batch:
        """This batch and a newer one as one."""
        return Batch(
            self.vouchers | newer.vouchers,
            self.charges | newer.charges,
            self.receipts + newer.receipts,
            self.places + newer.places,
            self.sessions + newer.sessions,
            self.saved + newer.saved,
        )

    @property
    def empty(self) -> bool:
        return not (self.vouchers or self.charges or self.receipts or self.sessions)


class Bookkeeper:
    """Run `run()` in a task; everything else is called from the event loop and returns at once."""

    def __init__(
        self,
        write: Callable[[Batch], Awaitable[None]],
        *,
        tidy: Callable[[], Awaitable[object]] | None = None,
        tidy_interval: float = TIDY_SECONDS,
    ) -> None:
        """`write` returns once the whole batch is on disk; writing the same batch twice must do no harm. `tidy` drops
        from the store what need not be kept any more, at the start and every `tidy_interval` seconds."""
        self._write = write
        self._tidy = tidy
        self._tidy_interval = tidy_interval
        self._tidied: float | None = None
        self._batch = Batch()
        self._urgent = asyncio.Event()
        self._stopping = False
        self._writing = asyncio.Lock()

    def voucher(self, entry: VoucherEntry, saved: Callable[[], None]) -> None:
        """Keep the newest voucher of a tranche (each supersedes the one before), then call `saved`."""
        self._batch.vouchers[entry.signed.voucher.tranche_id] = entry
        self.saved(saved)

    def saved(self, call: Callable[[], None]) -> None:
        """Call once everything given so far is on disk."""
        self._batch.saved.append(call)
        self._urgent.set()

    def charge(self, tranche_id: TrancheId, charged: Nectar) -> None:
        self._batch.charges[tranche_id] = charged

    def receipt(self, signed: SignedReceipt, place: Place | None) -> None:
        """Keep a receipt, and where the rows under it lie."""
        self._batch.receipts.append(signed)
        if place is not None:
            self._batch.places.append((signed.receipt.hash(), place))

    def session(self, entry: SessionEntry) -> None:
        self._batch.sessions.append(entry)

    async def run(self) -> None:
        """Write until `stop()`; a store that fails is tried again, and nothing is dropped."""
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAZY_SECONDS):
                    await self._urgent.wait()
            try:
                await self.flush()
            except Exception:  # the node goes on serving; what is unwritten stays in the batch
                _log.exception("the store does not take what it must keep")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._tidy_up()

    async def _tidy_up(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._tidy is None or (self._tidied is not None and now < self._tidied + self._tidy_interval):
            return
        self._tidied = now
        try:
            await self._tidy()
        except Exception:  # what is kept too long does no harm; the next turn tries again
            _log.exception("the store could not be tidied")

    async def stop(self) -> None:
        """Write what is left."""
        self._stopping = True
        self._urgent.set()
        await self.flush()

    async def flush(self) -> None:
        """Returns once everything given so far is on disk. Raises what `write` raises, keeping what is unwritten."""
        async with self._writing:
            self._urgent.clear()
            batch, self._batch = self._batch, Batch()
            try:
                if not batch.empty:
                    await self._write(batch)
            except BaseException:
                self._batch = batch.before(self._batch)
                raise
            for call in batch.saved:
                call()
