"""A directory asked now and then: rounds are short, and a lookup asks the DHT for every block of the model."""

from __future__ import annotations

import time
from collections.abc import Callable

from corolla_core.protocol.ids import ModelRoot
from corolla_core.swarm.announcement import Announcement
from corolla_validator.ports import Lookup


class RecentLookup:
    """What the directory said at most `seconds` ago. For one model."""

    def __init__(
        self, directory: Lookup, *, seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._seconds = seconds
        self._clock = clock
        self._asked_at = float("-inf")
        self._found: list[Announcement] = []

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        """Raises NetworkError as the directory does."""
        if self._clock() - self._asked_at >= self._seconds:
            self._found = await self._directory.lookup(model_root, num_blocks)
            self._asked_at = self._clock()
        return self._found
