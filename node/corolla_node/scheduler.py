"""One thread computes for every session. What is ready when it is free goes through the span in one pass, at once or as
soon as those are back that are about to be. `corolla_node.passes` says what goes together, `returns` who is waited for.

The event loop hands a job over and gets its outcome back by `call_soon_threadsafe`: one hop each way. Every session has
at most one job here at a time.
"""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, Generic, TypeVar

from torch import Tensor

from corolla_node.passes import MAX_DECODE_ROWS, choose, leave_behind
from corolla_node.ports import Blocks
from corolla_node.returns import Returns

T = TypeVar("T")


class Pending(Generic[T]):
    """What a session waits for; `done` is called on the loop with its result, or with the exception it raised."""

    def __init__(self, done: Callable[[Any], None]) -> None:
        self.done = done
        self.cancelled = False
        self.result: T | None = None
        self.error: BaseException | None = None

    def settle(self, work: Callable[[], T]) -> None:
        try:
            self.result = work()
        except BaseException as error:  # whatever it was, it belongs to the session that asked
            self.error = error


class Job(Pending[T]):
    """A piece of work by itself."""

    def __init__(self, work: Callable[[], T], done: Callable[[Pending[T]], None]) -> None:
        super().__init__(done)
        self.work = work


class StepJob(Pending[T]):
    """A step of `session` through `blocks`, to be shared with others' steps.

    `begin` gives the tensor that goes in and the session's cache, or None where nothing is left to compute; `finish`
    takes what came out (None then), or the exception in its place, and how many rows were in the pass.

    `rows` counts the step's positions over all rows of the session; `price` is per token and block.
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        session: Hashable,
        rows: int,
        price: int,
        begin: Callable[[], tuple[Tensor, Any] | None],
        finish: Callable[[Tensor | Exception | None, int], T],
        done: Callable[[Pending[T]], None],
    ) -> None:
        super().__init__(done)
        self.blocks, self.session, self.rows, self.price = blocks, session, rows, price
        self.begin, self.finish = begin, finish
        self.left_behind = 0
        self.submitted = 0.0


class Scheduler:
    """Start it from the loop that submits. Results of cancelled jobs are delivered too, with `cancelled` set, so that
    whoever holds memory for a job knows when the thread has let go of it."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._arrived: SimpleQueue[Job[Any] | tuple[StepJob[Any], bool] | None] = SimpleQueue()
        # These belong to the thread.
        self._jobs: list[Job[Any]] = []
        self._decode: list[StepJob[Any]] = []
        self._prefill: list[StepJob[Any]] = []
        self._overtaken = 0
        self._returns = Returns()
        self._thread = threading.Thread(target=self._run, name="corolla-compute", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being computed, drop the rest, and join the thread."""
        self._arrived.put(None)
        self._thread.join()

    @property
    def queued(self) -> int:
        """About how much waits; exact while the thread is busy with one thing."""
        return self._arrived.qsize() + len(self._jobs) + len(self._decode) + len(self._prefill)

    def submit(self, job: Job[T]) -> None:
        """Do it before the next pass."""
        self._arrived.put(job)

    def submit_step(self, job: StepJob[T], *, decode: bool) -> None:
        """Take the step into a pass; `decode` puts it before the prefill chunks."""
        job.submitted = perf_counter()
        self._arrived.put((job, decode))

    def _run(self) -> None:
        while self._take_in():
            while self._jobs:
                job = self._jobs.pop(0)
                if not job.cancelled:
                    job.settle(job.work)
                self._deliver(job)
            decode, prefill = self._next()
            began = perf_counter()
            self._pass([*decode, *prefill])
            now = perf_counter()
            if decode and not prefill:
                self._returns.passed(now - began)
            for step in decode:
                self._returns.left(step.session, now)

    def _take_in(self) -> bool:
        """Everything that has arrived, waiting as long as is worth it; False to stop."""
        while True:
            try:
                arrived = self._arrived.get_nowait()
            except Empty:
                try:
                    arrived = self._arrived.get(timeout=self._worth_waiting())
                except Empty:
                    return True
            if arrived is None:
                return False
            if isinstance(arrived, Job):
                self._jobs.append(arrived)
            else:
                step, decode = arrived
                (self._decode if decode else self._prefill).append(step)
                self._returns.came(step.session, step.submitted)

    def _worth_waiting(self) -> float | None:
        """How many seconds the next pass may wait for more; None where there is nothing to compute yet."""
        if not (self._jobs or self._decode or self._prefill):
            return None
        if self._jobs or not self._decode or sum(job.rows for job in self._decode) >= MAX_DECODE_ROWS:
            return 0.0
        now = perf_counter()
        return max(0.0, self._returns.until(now) - now)

    def _next(self) -> tuple[list[StepJob[Any]], list[StepJob[Any]]]:
        if len(self._decode) + len(self._prefill) == 1:
            alone, self._decode, self._prefill, self._overtaken = (self._decode, self._prefill), [], [], 0
            return alone
        decode, prefill = choose(self._decode, self._prefill, overtaken=self._overtaken)
        going = {id(job) for job in (*decode, *prefill)}
        self._decode = [job for job in self._decode if id(job) not in going]
        leave_behind(self._decode)
        if prefill:
            self._prefill = [job for job in self._prefill if id(job) not in going]
            leave_behind(self._prefill)
        self._overtaken = self._overtaken + 1 if self._prefill and not prefill else 0
        return decode, prefill

    def _pass(self, jobs: list[StepJob[Any]]) -> None:
        begun = []
        for job in jobs:
            if not job.cancelled:
                try:
                    inputs = job.begin()
                    if inputs is not None:
                        begun.append((job, inputs))
                        continue
                    job.settle(partial(job.finish, None, job.rows))
                except BaseException as error:  # this session's alone, too
                    job.error = error
            self._deliver(job)
        if not begun:
            return
        outputs: Sequence[Tensor | Exception]
        try:
            outputs = jobs[0].blocks.forward_many([inputs for _job, inputs in begun])
        except Exception as error:
            outputs = [error] * len(begun)
        rows = sum(job.rows for job, _inputs in begun)
        for (job, _inputs), output in zip(begun, outputs, strict=True):
            job.settle(partial(job.finish, output, rows))
            self._deliver(job)

    def _deliver(self, job: Pending[Any]) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody is left to tell
            self._loop.call_soon_threadsafe(job.done, job)
