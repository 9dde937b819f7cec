"""Who a pass waits for, and who not."""

from __future__ import annotations

import asyncio
import time

import pytest
import torch
from fake_blocks import FakeBlocks
from node_peers import until

from corolla_core.protocol.span import Span
from corolla_node.returns import PATIENCE, Returns
from corolla_node.scheduler import Pending, Scheduler, StepJob

pytestmark = pytest.mark.anyio


def returns() -> Returns:
    """Patient for one second."""
    returns = Returns()
    returns.passed(1 / PATIENCE)
    return returns


def test_nobody_is_waited_for_who_was_not_seen_to_come_back_at_once() -> None:
    waiting = returns()
    waiting.left("new", 10.0)
    assert waiting.until(10.1) == 10.1
    waiting.came("new", 12.0)  # late
    waiting.left("new", 20.0)
    assert waiting.until(20.1) == 20.1


def test_who_came_back_at_once_is_waited_for_as_long_as_that_may_take_and_once() -> None:
    waiting = returns()
    waiting.left("quick", 10.0)
    waiting.came("quick", 10.5)
    assert waiting.until(10.5) == 10.5  # it is here
    waiting.left("quick", 20.0)
    assert waiting.until(20.1) == 21.0
    assert waiting.until(21.5) == 21.5  # it did not come
    waiting.came("quick", 22.0)
    waiting.left("quick", 30.0)
    assert waiting.until(30.1) == 30.1


def test_a_session_is_not_waited_for_that_nobody_has_heard_of() -> None:
    waiting = returns()
    waiting.came("first", 5.0)
    assert waiting.until(5.0) == 5.0


@pytest.mark.parametrize(("sessions", "largest"), [(1, 1), (3, 3)])
async def test_sessions_out_of_step_come_to_share_passes(sessions: int, largest: int) -> None:
    loop = asyncio.get_running_loop()
    scheduler, blocks = Scheduler(loop), FakeBlocks(Span(0, 2))
    blocks.before_forward = lambda: time.sleep(0.1)
    left = dict.fromkeys(range(sessions), 12)
    scheduler.start()

    def finish(output: torch.Tensor | Exception | None, rows: int) -> int:
        return rows

    def submit(number: int) -> None:
        def done(_job: Pending[int]) -> None:
            left[number] -= 1
            if left[number]:
                loop.call_later(0.005, submit, number)

        cache = blocks.new_cache(1, 16)
        job = StepJob(
            blocks,
            session=number,
            rows=1,
            price=1,
            begin=lambda: (torch.zeros(1, 1, 4), cache),
            finish=finish,
            done=done,
        )
        scheduler.submit_step(job, decode=True)

    try:
        for number in range(sessions):
            submit(number)
            await asyncio.sleep(0.03)
        await until(lambda: not any(left.values()), seconds=30)
    finally:
        await asyncio.to_thread(scheduler.stop)
    assert max(blocks.passes) == largest
