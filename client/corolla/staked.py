"""Only nodes with something to lose: announcements are free, so those without active stake on chain are left out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from corolla.peers import Lookup
from corolla_core.protocol.errors import ChainError
from corolla_core.protocol.ids import Address, ModelRoot
from corolla_core.swarm.announcement import Announcement

_log = structlog.get_logger(__name__)

#: Seconds an answer of the registry holds, and how long to wait for one: a lookup may stand in the way of a repair.
STANDING_SECONDS = 60.0
PATIENCE_SECONDS = 2.0


class Standing(Protocol):
    """The part of `Registry` that is asked."""

    async def is_active(self, account: Address) -> bool: ...


class StakedLookup:
    """A directory without the nodes that the registry does not call active (unregistered, understaked or jailed).

    An endpoint that does not answer leaves what it said of a node before; a node it never spoke of stays out.
    """

    def __init__(self, directory: Lookup, registry: Standing, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._registry = registry
        self._clock = clock
        self._active: dict[Address, bool] = {}
        self._asked_at: dict[Address, float] = {}

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        """Raises NetworkError as the directory does."""
        found = await self._directory.lookup(model_root, num_blocks)
        now = self._clock()
        due = [a.account for a in found if now - self._asked_at.get(a.account, -STANDING_SECONDS) >= STANDING_SECONDS]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(self._ask(account, now) for account in due))
        return [a for a in found if self._active.get(a.account, False)]

    async def _ask(self, account: Address, now: float) -> None:
        try:
            self._active[account] = await self._registry.is_active(account)
        except ChainError as error:
            _log.warning("the chain does not say whether a node is staked", node=account, error=str(error))
        else:
            self._asked_at[account] = now
