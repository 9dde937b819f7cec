"""Work done for peers, contained: whatever one errand runs into ends that errand and not the node."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


class Errands:
    """Tasks of a TaskGroup that never fail it."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def create_task(self, errand: Coroutine[Any, Any, None]) -> None:
        """Raises RuntimeError when the group is closing."""
        self._tasks.create_task(_contained(errand))


async def _contained(errand: Coroutine[Any, Any, None]) -> None:
    try:
        await errand
    except Exception:
        # A bug that a peer has found. In a bare TaskGroup it would end every other peer's session too.
        _log.exception("an errand for a peer failed", errand=str(errand))
