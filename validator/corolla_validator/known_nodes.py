"""Which nodes are newcomers no more: of these not every session is audited (protocol.md section 5)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from corolla_core.protocol.ids import Address
from corolla_validator.scores import Rated


class KnownNodes:
    """As of at most `seconds` ago: rating everybody anew takes all of the books."""

    def __init__(
        self,
        rated: Callable[[], Awaitable[Mapping[Address, Rated]]],
        *,
        seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rated = rated
        self._seconds = seconds
        self._clock = clock
        self._rated_at = float("-inf")
        self._found: frozenset[Address] = frozenset()

    async def __call__(self) -> frozenset[Address]:
        """The accounts off probation. Raises what `rated` does."""
        if self._clock() - self._rated_at >= self._seconds:
            self._found = frozenset(one.node for one in (await self._rated()).values() if not one.probation)
            self._rated_at = self._clock()
        return self._found
