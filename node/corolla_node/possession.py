"""Showing that this node holds its weights: their chunks read from disk and hashed, on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from corolla_core.protocol.errors import (
    CorollaError,
    ModelError,
    NetworkError,
    NotServed,
    PossessionUnavailable,
    to_wire,
)
from corolla_core.protocol.ids import Address, Hash32, ModelRoot
from corolla_core.swarm.messages import AskPossession, Fault, Possession
from corolla_node.errands import Errands
from corolla_node.ports import Link, Weights
from corolla_node.throttle import Throttle

_log = structlog.get_logger(__name__)
MOST_WAITING = 4
"""Askers answered one after another; each may have one question under way."""
RATE, BURST = 2 * 2**20, 512 * 2**20
"""Bytes a second, and at once, for one asker: two of the longest questions, and another one every two minutes. All
together may have eight times as much, which keeps a disk and a core busy a few hundredths of the time."""
LEAST = 64 * 2**10
"""What a question costs at least."""


class Possessions:
    """Used from the event loop only."""

    def __init__(
        self, account: Address, model_root: ModelRoot, weights: Weights, *, tasks: Errands, clock: Callable[[], float]
    ) -> None:
        self._account = account
        self._model_root = model_root
        self._weights = weights
        self._tasks = tasks
        self._asking: set[Address] = set()
        self._throttle = Throttle(rate=RATE, burst=BURST, shared=8, clock=clock)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="corolla-possession")

    def ask(self, conn: Link, message: AskPossession) -> None:
        """Answer soon. Raises NotServed for another model or blocks that it does not hold, InvalidInput for chunks that
        these have not, PossessionUnavailable when it is asked too much."""
        if message.model_root != self._model_root:
            raise NotServed(f"this node serves model 0x{self._model_root.hex()}")
        nbytes = sum(self._weights.size(chunk) for chunk in message.chunks)
        if (
            conn.peer in self._asking
            or len(self._asking) >= MOST_WAITING
            or not self._throttle.take(conn.peer, max(LEAST, nbytes))
        ):
            raise PossessionUnavailable("asked too much: ask again later", reason="busy")
        self._asking.add(conn.peer)
        self._tasks.create_task(self._answer(conn, message))

    def close(self) -> None:
        """Wait for what is being read."""
        self._thread.shutdown()

    async def _answer(self, conn: Link, message: AskPossession) -> None:
        loop = asyncio.get_running_loop()
        salt = Hash32(message.salt)
        try:
            digests = await loop.run_in_executor(
                self._thread, self._weights.digests, self._account, salt, message.chunks
            )
            conn.send(Possession(salt, list(digests)))
        except NetworkError:
            return  # gone before it was answered
        except CorollaError as error:
            lost = isinstance(error, ModelError)
            if lost:
                _log.error("the checkpoint cannot be read any more: validators will doubt it", error=str(error))
                error = PossessionUnavailable("the checkpoint cannot be read", reason="lost")
            with suppress(NetworkError):
                conn.send(Fault(to_wire(error)))
        finally:
            self._asking.discard(conn.peer)
