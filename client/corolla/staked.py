"""Only nodes with something to lose: announcements are free, so those without active stake on chain are left out; and
what the chain says of the others."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import structlog

from corolla.peers import Lookup
from corolla.standing import Standing
from corolla_core.chain.registry import NodeRecord
from corolla_core.chain.reputation import NodeScore
from corolla_core.protocol.errors import ChainError
from corolla_core.protocol.ids import Address, ModelRoot
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement

_log = structlog.get_logger(__name__)

#: Seconds an answer of the registry holds, and how long to wait for one: a lookup may stand in the way of a repair.
STANDING_SECONDS = 60.0
PATIENCE_SECONDS = 2.0
#: Announcing costs nothing: a flood of strangers must neither starve the nodes known nor load the endpoint.
CONCURRENCY = 16
MOST_STRANGERS = 128


class Registered(Protocol):
    """The part of `Registry` that is asked."""

    async def node(self, account: Address) -> NodeRecord: ...


class Scores(Protocol):
    """The part of `Reputation` that is asked."""

    async def scores(self, nodes: Sequence[Address]) -> Mapping[Address, NodeScore | None]: ...


class StakedLookup:
    """A directory without the nodes that the registry does not call active (unregistered, understaked or jailed).

    An endpoint that does not answer leaves what it said of a node before; a node it never spoke of stays out. `oracle`
    is asked for the scores of active nodes, all in one call; without one every node is a newcomer.
    """

    def __init__(
        self,
        directory: Lookup,
        registry: Registered,
        oracle: Scores | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._oracle = oracle
        self._clock = clock
        self._rng = rng or random.Random()
        self._active: dict[Address, bool] = {}
        self._asked_at: dict[Address, float] = {}
        self._owners: dict[Address, Address] = {}
        self._stakes: dict[Address, Nectar] = {}
        self._scores: dict[Address, float] = {}
        self._scored_at: dict[Address, float] = {}

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        """Raises NetworkError as the directory does."""
        found = await self._directory.lookup(model_root, num_blocks)
        now = self._clock()
        due = [a.account for a in found if now - self._asked_at.get(a.account, -STANDING_SECONDS) >= STANDING_SECONDS]
        queue = iter(self._in_turn(due))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*(self._work(queue, now) for _ in range(min(CONCURRENCY, len(due)))))
                await self._ask_scores([a.account for a in found if self._active.get(a.account, False)], now)
        return [a for a in found if self._active.get(a.account, False)]

    def standing(self, account: Address) -> Standing:
        """What the chain said last of a node."""
        return Standing(self._owners.get(account), self._scores.get(account), self._stakes.get(account, Nectar(0)))

    def _in_turn(self, due: list[Address]) -> list[Address]:
        """Whom to ask, in order: nodes known to be active before all others, then some of those never asked, then those
        that had no stake. By lot within a kind, or whoever floods the directory could choose who comes first."""
        self._rng.shuffle(due)
        active = [account for account in due if self._active.get(account, False)]
        others = [account for account in due if not self._active.get(account, False)]
        others.sort(key=lambda account: self._asked_at.get(account, float("-inf")))
        return active + others[:MOST_STRANGERS]

    async def _work(self, queue: Iterator[Address], now: float) -> None:
        for account in queue:
            await self._ask(account, now)

    async def _ask(self, account: Address, now: float) -> None:
        try:
            record = await self._registry.node(account)
        except ChainError as error:
            _log.warning("the chain does not say whether a node is staked", node=account, error=str(error))
        else:
            self._active[account] = record.active
            self._owners[account] = record.owner
            self._stakes[account] = record.stake
            self._asked_at[account] = now

    async def _ask_scores(self, accounts: Sequence[Address], now: float) -> None:
        due = [a for a in accounts if now - self._scored_at.get(a, -STANDING_SECONDS) >= STANDING_SECONDS]
        if self._oracle is None or not due:
            return
        try:
            found = await self._oracle.scores(due)
        except ChainError as error:
            _log.warning("the chain does not say how nodes are scored", error=str(error))
            return
        for account, score in found.items():
            self._scored_at[account] = now
            if score is not None:
                self._scores[account] = score.fraction
