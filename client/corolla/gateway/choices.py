"""The texts of one request, made at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from corolla.gateway.backend import Ask, Backend, Delta, Route, Running
from corolla.values import FinishReason, Spent
from corolla_core.protocol.units import Nectar

#: Deltas that wait for a reader. One that reads slower than texts are made holds them up, and pays for no more.
MAX_WAITING = 16


@dataclass(frozen=True, slots=True)
class Ended:
    """The last of a text."""

    finish: FinishReason


Item = Delta | Ended


class Choices:
    """Iterate: `(index, item)` of all texts as they come; raises what any of them failed with, the others given up.

    They are made in a task of their own, so that an answer cut off in mid-await still lets them settle with the nodes:
    `give_up` asks them to, `done` tells when they have.
    """

    def __init__(
        self,
        backend: Backend,
        asks: Sequence[Ask],
        *,
        per_prompt: int,
        clock: Callable[[], float],
        ended: Callable[[Choices], Awaitable[None]],
    ) -> None:
        """`per_prompt`: how many in a row continue the same prompt. `ended` is awaited when every text has ended,
        however it did."""
        self._running: list[Running] = [backend.start(ask) for ask in asks]
        self._per_prompt = per_prompt
        self._clock = clock
        self._first_at: float | None = None
        self._ended = ended
        self._items: asyncio.Queue[tuple[int, Item] | None] = asyncio.Queue(MAX_WAITING)
        self._error: BaseException | None = None
        self.done = asyncio.create_task(self._run())

    @property
    def route(self) -> Route:
        return self._running[0].route

    @property
    def spent(self) -> Spent:
        """By all texts together; a prompt that several of them continue counts once in `prompt_tokens`."""
        each = [running.spent for running in self._running]
        prompts = [
            max(each[start : start + self._per_prompt], key=lambda spent: spent.prompt_tokens)
            for start in range(0, len(each), self._per_prompt)
        ]
        return Spent(
            prompt_tokens=sum(spent.prompt_tokens for spent in prompts),
            cached_tokens=sum(spent.cached_tokens for spent in prompts),
            tokens=sum(spent.tokens for spent in each),
            cost=Nectar(sum(spent.cost for spent in each)),
        )

    @property
    def seconds_per_token(self) -> float | None:
        """Mean time from one token of a text to its next, so far; None where no text has two."""
        later = self.spent.tokens - len(self._running)
        if self._first_at is None or later <= 0:
            return None
        return (self._clock() - self._first_at) * len(self._running) / later

    def give_up(self) -> None:
        self.done.cancel()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Item]]:
        while (item := await self._items.get()) is not None:
            yield item
        if self._error is not None:
            raise self._error

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for index, running in enumerate(self._running):
                    tasks.create_task(self._make(index, running))
        except* Exception as group:
            self._error = group.exceptions[0]
        finally:
            await self._ended(self)
        await self._items.put(None)

    async def _make(self, index: int, running: Running) -> None:
        try:
            async for delta in running:
                self._first_at = self._first_at or self._clock()
                await self._items.put((index, delta))
            await self._items.put((index, Ended(running.finish)))
        finally:
            await running.aclose()
