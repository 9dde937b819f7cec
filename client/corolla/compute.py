"""One thread for a client's torch work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class ComputeThread:
    """Does what event loops give it, one thing after the other.

    Instead of an executor, whose futures cost a token most of a millisecond: they are locked, chained to the loop's own
    and copied, in code that a forward pass has driven from the caches.
    """

    def __init__(self, name: str) -> None:
        self._given: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises on the thread. A caller that is cancelled abandons the answer."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._given.put((work, done))
        return await done

    def close(self) -> None:
        """End after what is being done; whoever waits for more is cancelled."""
        with suppress(Empty):
            while True:
                given = self._given.get_nowait()
                if given is not None:
                    _, done = given
                    done.get_loop().call_soon_threadsafe(done.cancel)
        self._given.put(None)

    def _run(self) -> None:
        while (given := self._given.get()) is not None:
            work, done = given
            if not done.cancelled():
                result, error = None, None
                try:
                    result = work()
                except BaseException as raised:  # whatever it was, it belongs to whoever asked
                    error = raised
                with suppress(RuntimeError):  # its loop has closed: nobody is left to tell
                    done.get_loop().call_soon_threadsafe(_settle, done, result, error)
            del given, work, done  # nothing is held while there is nothing to do


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
