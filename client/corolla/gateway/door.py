"""Where requests wait until `admission` lets them run."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from corolla.gateway import admission
from corolla.gateway.admission import Limits, Line, Moved
from corolla_core.protocol.errors import Overloaded


class Door:
    """Used from one event loop."""

    def __init__(self, limits: Limits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._line = Line()
        self._tickets = itertools.count()
        self._turns: dict[int, _Turn] = {}

    @property
    def line(self) -> Line:
        return self._line

    @asynccontextmanager
    async def passed(self, key: str, streams: int = 1) -> AsyncIterator[None]:
        """Run so many streams for `key`, after waiting for room if need be.

        Raises Overloaded where there is none to be had in time, and InvalidInput for more than could ever run at once.
        """
        await self._enter(key, streams)
        try:
            yield
        finally:
            self._leave(key, streams)

    async def _enter(self, key: str, streams: int) -> None:
        ticket = next(self._tickets)
        moved = admission.arrive(self._line, ticket, key=key, streams=streams, limits=self.limits)
        turn = self._turns[ticket] = _Turn()
        try:
            self._move(moved)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.patience):
                    await turn.decided.wait()
        except asyncio.CancelledError:
            if turn.may:
                self._leave(key, streams)
            else:
                self._move(admission.give_up(self._line, ticket, limits=self.limits))
            raise
        finally:
            del self._turns[ticket]
        if not turn.may:
            self._move(admission.give_up(self._line, ticket, limits=self.limits))
            wait = admission.retry_after(self._line, streams)
            raise Overloaded("the gateway has all the requests it can take: try again later", retry_after=wait)

    def _leave(self, key: str, streams: int) -> None:
        self._move(admission.depart(self._line, key=key, streams=streams, now=self._clock(), limits=self.limits))

    def _move(self, moved: Moved) -> None:
        self._line = moved.line
        for ticket in moved.admitted:
            self._turns[ticket].may = True
        for ticket in (*moved.admitted, *moved.shed):
            self._turns[ticket].decided.set()


class _Turn:
    """Whether a request may run, once that is decided."""

    def __init__(self) -> None:
        self.decided = asyncio.Event()
        self.may = False
