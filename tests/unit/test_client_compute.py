"""The client's compute thread: one thing after the other, each answer to whoever asked."""

from __future__ import annotations

import asyncio
import threading

import pytest

from corolla.compute import ComputeThread

pytestmark = pytest.mark.anyio


async def test_work_is_done_in_order_on_one_other_thread() -> None:
    thread, done = ComputeThread("test"), list[int]()

    def work(number: int) -> tuple[int, int]:
        done.append(number)
        return number, threading.get_ident()

    answers = await asyncio.gather(*(thread.run(lambda n=number: work(n)) for number in range(20)))
    thread.close()
    assert done == [number for number, _ in answers] == list(range(20))
    assert {ident for _, ident in answers} != {threading.get_ident()}
    assert len({ident for _, ident in answers}) == 1


async def test_what_is_raised_reaches_whoever_asked_and_nobody_else() -> None:
    thread = ComputeThread("test")

    def fail() -> None:
        raise ValueError("of this work")

    failed, fine = await asyncio.gather(thread.run(fail), thread.run(lambda: 1), return_exceptions=True)
    thread.close()
    assert (str(failed), fine) == ("of this work", 1)


async def test_work_that_nobody_waits_for_any_more_is_not_begun() -> None:
    thread, go, begun = ComputeThread("test"), threading.Event(), list[str]()
    first = asyncio.create_task(thread.run(go.wait))
    given_up = asyncio.create_task(thread.run(lambda: begun.append("given up")))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    go.set()
    assert await first
    assert await thread.run(lambda: begun) == []
    thread.close()


async def test_closing_cancels_whoever_still_waits() -> None:
    thread, begun, go = ComputeThread("test"), threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return go.wait()

    working = asyncio.create_task(thread.run(work))
    await asyncio.to_thread(begun.wait)
    waiting = asyncio.create_task(thread.run(lambda: 1))
    await asyncio.sleep(0)
    thread.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    assert await working


def test_it_outlives_a_loop_that_closed_under_it() -> None:
    thread, begun, go = ComputeThread("test"), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait()

    async def leave() -> None:
        task = asyncio.create_task(thread.run(work))
        await asyncio.to_thread(begun.wait)
        task.cancel()

    asyncio.run(leave())
    go.set()
    assert asyncio.run(thread.run(lambda: 1)) == 1
    thread.close()
