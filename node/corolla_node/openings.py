"""The rows under this node's receipts, shown to whoever names one: read on a thread of its own, a little at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from corolla_core.protocol.errors import CorollaError, InvalidInput, NetworkError, OpeningUnavailable, to_wire
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.merkle import merkle_proof
from corolla_core.protocol.receipt import row_leaf
from corolla_core.store.kept_rows import Place
from corolla_core.swarm.frame import DTYPE_BYTES
from corolla_core.swarm.messages import AskOpening, Fault, Opening, Tensor
from corolla_node.archive import Archive, ArchivedRows
from corolla_node.errands import Errands
from corolla_node.ports import Link
from corolla_node.throttle import Throttle

_log = structlog.get_logger(__name__)
MAX_BYTES = 60 * 2**20
"""What one answer may take: a frame has room for no more."""
MAX_READING = 16
MAX_READING_EACH = 4
"""Openings under way, in all and of one peer."""
RATE, BURST = 8 * 2**20, 64 * 2**20
"""Bytes a second, and at once, for one peer; all peers together may have four times as much."""
LEAST = 64 * 2**10
"""What a request costs at least, found or not: a look into the store is not free either."""

Find = Callable[[Hash32], Awaitable[Place | None]]


class Openings:
    """`find` looks into the store. Used from the event loop only."""

    def __init__(self, archive: Archive, find: Find, *, tasks: Errands, clock: Callable[[], float]) -> None:
        self._archive = archive
        self._find = find
        self._tasks = tasks
        self._reading: Counter[Address] = Counter()
        self._throttle = Throttle(rate=RATE, burst=BURST, shared=4, clock=clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="corolla-openings")

    def ask(self, conn: Link, message: AskOpening) -> None:
        """Answer soon. Raises OpeningUnavailable or InvalidInput."""
        if not (message.inputs or message.outputs):
            raise InvalidInput("neither inputs nor outputs were asked for")
        if (
            self._reading.total() >= MAX_READING
            or self._reading[conn.peer] >= MAX_READING_EACH
            or not self._throttle.take(conn.peer, LEAST)
        ):
            raise _busy(message)
        self._reading[conn.peer] += 1
        self._tasks.create_task(self._answer(conn, message))

    def close(self) -> None:
        """Wait for what is being read."""
        self._thread.shutdown()

    async def _answer(self, conn: Link, message: AskOpening) -> None:
        try:
            opening, payload = await self._open(conn, message)
            conn.send(opening, payload)
        except NetworkError:
            return  # gone before it was answered
        except CorollaError as error:
            with suppress(NetworkError):
                conn.send(Fault(to_wire(error)))
        finally:
            self._reading[conn.peer] -= 1
            self._reading += Counter()  # drops who has none left

    async def _open(self, conn: Link, message: AskOpening) -> tuple[Opening, bytes]:
        receipt = Hash32(message.receipt)
        place = self._archive.recent(receipt) or await self._find(receipt)
        if place is not None and place.size > LEAST and not self._throttle.take(conn.peer, place.size - LEAST):
            raise _busy(message)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._read, message, place)

    def _read(self, message: AskOpening, place: Place | None) -> tuple[Opening, bytes]:
        rows = self._archive.read(Hash32(message.receipt), place)
        sides = [side for side, wanted in ((rows.inputs, message.inputs), (rows.outputs, message.outputs)) if wanted]
        indices = [position - rows.pos_start for position in message.positions]
        if any(not 0 <= index < len(rows.inputs) for index in indices):
            raise InvalidInput("a position that this receipt has not")
        picked = [[side[index] for index in indices] if indices else side for side in sides]
        payload = b"".join(row for side in picked for row in side)
        if len(payload) > MAX_BYTES:
            raise OpeningUnavailable("ask for one side, or for fewer rows", receipt=rows.receipt, reason="large")
        hidden = memoryview(rows.inputs[0]).nbytes // (rows.batch * DTYPE_BYTES[rows.dtype])
        shape = [len(sides), len(picked[0]), rows.batch, hidden]
        branches = [branch for side in sides for branch in _branches(rows, side, indices)]
        reorderings = [] if indices else list(rows.reorderings)
        return Opening(rows.receipt, branches, Tensor(rows.dtype, shape), reorderings), payload


def _branches(rows: ArchivedRows, side: tuple[bytes | memoryview, ...], indices: list[int]) -> list[list[bytes]]:
    if not indices:
        return []
    leaves = [row_leaf(rows.session, rows.pos_start + at, row) for at, row in enumerate(side)]
    return [[sibling for _left, sibling in merkle_proof(leaves, index)] for index in indices]


def _busy(message: AskOpening) -> OpeningUnavailable:
    return OpeningUnavailable("too much is being opened: ask again later", receipt=message.receipt, reason="busy")
