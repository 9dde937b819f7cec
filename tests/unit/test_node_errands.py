"""What a peer makes the node do never ends the node."""

from __future__ import annotations

import asyncio

import pytest

from corolla_node.errands import Errands

pytestmark = pytest.mark.anyio


async def test_an_errand_that_fails_leaves_the_others_and_their_group_alone() -> None:
    done: list[str] = []

    async def fail() -> None:
        raise ZeroDivisionError("a bug that a peer has found")

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append("worked")

    async with asyncio.TaskGroup() as tasks:
        errands = Errands(tasks)
        errands.create_task(fail())
        errands.create_task(work())
    assert done == ["worked"]


async def test_an_errand_is_cancelled_with_its_group() -> None:
    cancelled = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            Errands(tasks).create_task(wait())
            await asyncio.sleep(0)
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await group()
    assert cancelled.is_set()
