"""The receipts a node signed, shown to whoever asks: validators find in them what there is to audit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from corolla_core.protocol.errors import CorollaError, NetworkError, OutOfCapacity, StoreError, to_wire
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.swarm.messages import MAX_RECEIPTS, AskReceipts, Fault, Receipts
from corolla_node.ports import Clock, Link

_log = structlog.get_logger(__name__)

LAG_MS = 3_000
"""The newest receipts are not shown yet: they reach the store in batches, and an older one could come after."""
MOST_AT_ONCE = 8

Page = Callable[[int, Hash32, int, int], Awaitable[list[SignedReceipt]]]
"""Receipts from behind (t_out, hash) on, made before a time in milliseconds, at most so many. Raises StoreError."""


class Feed:
    """Answers one question of a peer at a time; who asks again before that is refused."""

    def __init__(self, page: Page, clock: Clock) -> None:
        self._page = page
        self._clock = clock
        self._asking: set[Address] = set()

    async def answer(self, conn: Link, question: AskReceipts) -> None:
        """Sends Receipts, or a Fault."""
        with suppress(NetworkError):
            try:
                conn.send(await self._read(conn.peer, question))
            except CorollaError as error:
                conn.send(Fault(to_wire(error)))

    async def _read(self, peer: Address, question: AskReceipts) -> Receipts:
        if peer in self._asking or len(self._asking) >= MOST_AT_ONCE:
            raise OutOfCapacity("too many questions at once", needed=1, free=0)
        self._asking.add(peer)
        before = int(self._clock() * 1000) - LAG_MS
        try:
            found = await self._page(question.t_out, Hash32(question.after), before, MAX_RECEIPTS + 1)
        except StoreError as error:
            _log.error("the receipts cannot be read", error=str(error))
            raise OutOfCapacity("the receipts cannot be read now", needed=1, free=0) from error
        finally:
            self._asking.discard(peer)
        return Receipts(found[:MAX_RECEIPTS], len(found) > MAX_RECEIPTS)
