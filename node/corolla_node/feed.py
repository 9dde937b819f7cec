"""The receipts a node holds, shown to whoever asks: validators find in them what there is to audit, and to prove."""

from __future__ import annotations

from contextlib import suppress

import structlog

from corolla_core.protocol.errors import CorollaError, NetworkError, OutOfCapacity, StoreError, to_wire
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.swarm.messages import MAX_RECEIPTS, AskNamed, AskReceipts, Fault, Receipts
from corolla_node.ports import Clock, Link, Memory

_log = structlog.get_logger(__name__)

LAG_MS = 3_000
"""The newest receipts are not shown yet: they reach the store in batches, and an older one could come after."""
MOST_AT_ONCE = 8


class Feed:
    """Answers one question of a peer at a time; who asks again before that is refused."""

    def __init__(self, memory: Memory, clock: Clock) -> None:
        self._memory = memory
        self._clock = clock
        self._asking: set[Address] = set()

    async def answer(self, conn: Link, question: AskReceipts | AskNamed) -> None:
        """Sends Receipts, or a Fault."""
        with suppress(NetworkError):
            try:
                found = await self._read(conn.peer, question)
            except CorollaError as error:
                conn.send(Fault(to_wire(error)))
            else:
                conn.send(Receipts(found[:MAX_RECEIPTS], len(found) > MAX_RECEIPTS))

    async def _read(self, peer: Address, question: AskReceipts | AskNamed) -> list[SignedReceipt]:
        if peer in self._asking or len(self._asking) >= MOST_AT_ONCE:
            raise OutOfCapacity("too many questions at once", needed=1, free=0)
        self._asking.add(peer)
        try:
            if isinstance(question, AskNamed):
                return await self._memory.receipts_named([Hash32(name) for name in question.receipts])
            before = int(self._clock() * 1000) - LAG_MS
            after = Hash32(question.after)
            return await self._memory.receipts_after(question.t_out, after, before, MAX_RECEIPTS + 1)
        except StoreError as error:
            _log.error("the receipts cannot be read", error=str(error))
            raise OutOfCapacity("the receipts cannot be read now", needed=1, free=0) from error
        finally:
            self._asking.discard(peer)
