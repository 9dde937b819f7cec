"""How a node is told to stop, and what comes of it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog

_log = structlog.get_logger(__name__)
T = TypeVar("T")


class Stop:
    """How a node is told to stop: the first SIGTERM drains, SIGINT or a second SIGTERM does not wait for sessions."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self.up = False
        """set by the node once it serves; before that there is nothing to drain"""

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.drain)
        loop.add_signal_handler(signal.SIGINT, self.now)

    def drain(self) -> None:
        if self.asked.is_set():
            self.at_once.set()
        self.asked.set()

    def now(self) -> None:
        self.at_once.set()
        self.asked.set()


async def supervise(node: Coroutine[Any, Any, None], stop: Stop) -> None:
    """Run a node; one that is told to stop before it is up is cancelled. Raises what the node raises."""
    running = asyncio.create_task(node)
    asked = asyncio.create_task(stop.asked.wait())
    try:
        await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done() and not stop.up:
            _log.info("stopped before it was up")
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    finally:
        asked.cancel()


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; None, `work` given up, when `event` is set."""
    task = asyncio.create_task(work)
    given_up = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, given_up}, return_when=asyncio.FIRST_COMPLETED)
        return None if event.is_set() else await task
    finally:
        given_up.cancel()
        task.cancel()
        await asyncio.wait({task})
