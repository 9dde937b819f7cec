"""The compute thread: what it runs together, and what becomes of jobs that fail or are given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
from fake_blocks import FakeBlocks
from node_peers import until

from corolla_core.protocol.span import Span
from corolla_node.passes import PASSES_PER_PREFILL
from corolla_node.scheduler import Job, Pending, Scheduler, StepJob

pytestmark = pytest.mark.anyio


class Bench:
    """A scheduler held up until `go` is set, so that what waits is known."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.blocks = FakeBlocks(Span(0, 2))
        self.go = threading.Event()
        self.finished: list[Pending[Any]] = []
        self.passes: list[list[str]] = []

    def step(self, name: str, *, begin: Callable[[], tuple[torch.Tensor, Any]] | None = None) -> StepJob[str]:
        def input_of() -> tuple[torch.Tensor, Any]:
            return torch.zeros(1, 1, 4), self.blocks.new_cache(1, 8)

        def finish(output: torch.Tensor | Exception, rows: int) -> str:
            if isinstance(output, Exception):
                raise output
            return f"{name} of {rows}"

        return StepJob(
            self.blocks,
            session=name,
            rows=1,
            price=1,
            begin=begin or input_of,
            finish=finish,
            done=self.finished.append,
        )


@asynccontextmanager
async def held_up() -> AsyncIterator[Bench]:
    scheduler = Scheduler(asyncio.get_running_loop())
    bench = Bench(scheduler)
    scheduler.submit(Job(lambda: bench.go.wait(5), lambda _job: None))
    scheduler.start()
    await until(lambda: scheduler.queued == 0)
    try:
        yield bench
    finally:
        await asyncio.to_thread(scheduler.stop)


async def test_steps_that_are_ready_share_a_pass_and_prefill_gets_its_turn() -> None:
    async with held_up() as bench:
        prompt = bench.step("prompt")
        bench.scheduler.submit_step(prompt, decode=False)

        def again(job: Pending[str]) -> None:
            bench.finished.append(job)
            if len(bench.finished) < 60:
                follow_up = bench.step("decode")
                follow_up.done = again
                bench.scheduler.submit_step(follow_up, decode=True)

        for _ in range(3):
            job = bench.step("decode")
            job.done = again
            bench.scheduler.submit_step(job, decode=True)
        bench.go.set()
        await until(lambda: len(bench.finished) >= 60)
        assert bench.blocks.passes[0] == 3
        before = [job.result for job in bench.finished[: bench.finished.index(prompt)]]
        assert 3 <= len(before) <= 3 * (PASSES_PER_PREFILL + 1)


async def test_a_single_step_goes_at_once() -> None:
    async with held_up() as bench:
        bench.go.set()
        for turn in range(1, 4):
            bench.scheduler.submit_step(bench.step("only"), decode=True)
            await until(lambda turn=turn: len(bench.finished) == turn)
        assert [job.result for job in bench.finished] == ["only of 1"] * 3


async def test_a_step_that_cannot_begin_or_fails_is_the_only_one_to_fail() -> None:
    def refuse() -> tuple[torch.Tensor, Any]:
        raise ValueError("NaN")

    async with held_up() as bench:
        bench.blocks.break_next = RuntimeError("out of registers")
        unready, first, second = bench.step("unready", begin=refuse), bench.step("first"), bench.step("second")
        for job in (unready, first, second):
            bench.scheduler.submit_step(job, decode=True)
        bench.go.set()
        await until(lambda: len(bench.finished) == 3)
        assert [type(job.error) for job in (unready, first, second)] == [ValueError, RuntimeError, type(None)]
        assert second.result == "second of 2"


async def test_the_thread_outlives_blocks_that_break_their_promise() -> None:
    class Raising(FakeBlocks):
        def forward_many(self, steps: Sequence[tuple[torch.Tensor, Any]]) -> list[torch.Tensor | Exception]:
            raise RuntimeError("all of it")

    async with held_up() as bench:
        bench.blocks = Raising(Span(0, 2))
        bench.scheduler.submit_step(bench.step("one"), decode=True)
        bench.go.set()
        await until(lambda: len(bench.finished) == 1)
        assert isinstance(bench.finished[0].error, RuntimeError)
        bench.blocks = FakeBlocks(Span(0, 2))
        bench.scheduler.submit_step(bench.step("two"), decode=True)
        await until(lambda: len(bench.finished) == 2)
        assert bench.finished[1].result == "two of 1"


async def test_a_cancelled_job_is_not_run_and_still_handed_back() -> None:
    async with held_up() as bench:
        ran: list[int] = []
        job: Job[None] = Job(lambda: ran.append(1), bench.finished.append)
        step, other = bench.step("step", begin=lambda: ran.append(2) or (torch.zeros(1), None)), bench.step("other")
        bench.scheduler.submit(job)
        for each in (step, other):
            bench.scheduler.submit_step(each, decode=True)
        job.cancelled = step.cancelled = True
        bench.go.set()
        await until(lambda: len(bench.finished) == 3)
        assert ran == []
        assert (step.result, other.result) == (None, "other of 1")
