"""One thread computes for every session: decode steps first, prefill chunks in between, in order of arrival.

The event loop hands a job over and gets its outcome back by `call_soon_threadsafe`: one hop each way. Every session has
at most one job here at a time, so that first come, first served is fair among sessions.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")

DECODES_PER_PREFILL = 8
"""How many decode steps may overtake a waiting prefill chunk before it gets its turn."""


class Job(Generic[T]):
    """A piece of work; `done` is called on the loop with its result, or with the exception it raised."""

    __slots__ = ("cancelled", "done", "error", "result", "work")

    def __init__(self, work: Callable[[], T], done: Callable[[Job[T]], None]) -> None:
        self.work = work
        self.done = done
        self.cancelled = False
        self.result: T | None = None
        self.error: BaseException | None = None


class Scheduler:
    """Start it from the loop that submits. Results of cancelled jobs are delivered too, with `cancelled` set, so that
    whoever holds memory for a job knows when the thread has let go of it."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._decode: deque[Job[object]] = deque()
        self._prefill: deque[Job[object]] = deque()
        self._tickets: SimpleQueue[bool] = SimpleQueue()
        self._overtaken = 0
        self._thread = threading.Thread(target=self._run, name="corolla-compute", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the job at hand, drop the rest, and join the thread."""
        self._tickets.put(False)
        self._thread.join()

    @property
    def queued(self) -> int:
        return len(self._decode) + len(self._prefill)

    def submit(self, job: Job[T], *, urgent: bool) -> None:
        """Queue `job`; `urgent` for a decode step."""
        lane = self._decode if urgent else self._prefill
        lane.append(job)  # type: ignore[arg-type]
        self._tickets.put(True)

    def _run(self) -> None:
        while self._tickets.get():
            job = self._next()
            if not job.cancelled:
                try:
                    job.result = job.work()
                except BaseException as error:  # whatever it was, it belongs to the session that asked
                    job.error = error
            try:
                self._loop.call_soon_threadsafe(job.done, job)
            except RuntimeError:
                return  # the loop has closed: nobody is left to tell

    def _next(self) -> Job[object]:
        # A ticket is queued after its job, so one of the lanes has something; only this thread takes from them.
        if self._prefill and (not self._decode or self._overtaken >= DECODES_PER_PREFILL):
            self._overtaken = 0
            return self._prefill.popleft()
        self._overtaken += 1 if self._prefill else 0
        return self._decode.popleft()
