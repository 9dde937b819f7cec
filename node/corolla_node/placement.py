"""Whether this node still serves the blocks that the swarm lacks most, looked at now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Protocol

import structlog

from corolla_core.protocol.errors import NetworkError
from corolla_core.protocol.ids import Address, ModelRoot
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.plausible import most_believed
from corolla_node.block_choice import Served, should_move, survey
from corolla_node.ports import Clock

_log = structlog.get_logger(__name__)
_PAYS_AFTER = 10.0
"""A node serves at least this many times as long as it takes to load blocks before it moves again."""


class Lookup(Protocol):
    """The part of `Directory` that tells who serves what. Raises NetworkError."""

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]: ...


@dataclass(frozen=True, slots=True)
class Held:
    """The blocks this node serves, its throughput in thousandths of a token a second, how many seconds it took to load
    them, and since when it serves them."""

    span: Span
    throughput: int
    loading: float
    since: float


class Placement:
    """`interval`: seconds between two looks on average, drawn anew each time lest nodes look together."""

    def __init__(
        self,
        directory: Lookup,
        account: Address,
        model_root: ModelRoot,
        num_blocks: int,
        *,
        interval: float,
        threshold: float,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._directory = directory
        self._account = account
        self._model_root = model_root
        self._num_blocks = num_blocks
        self._interval = interval
        self._threshold = threshold
        self._clock = clock
        self._rng = rng

    async def better(self, held: Held) -> Span:
        """Returns when there is a better place for this node, which may be never."""
        while True:
            await asyncio.sleep(self._interval * self._rng.uniform(0.5, 1.5))
            if self._clock() - held.since < _PAYS_AFTER * held.loading:
                continue
            try:
                swarm = await self._directory.lookup(self._model_root, self._num_blocks)
            except NetworkError as error:
                _log.warning("it is not known where blocks are lacking", error=str(error))
                continue
            there = self.choose(held, swarm)
            if there is not None:
                _log.info("these blocks are needed more", blocks=str(there), now=str(held.span), nodes_seen=len(swarm))
                return there

    def choose(self, held: Held, swarm: list[Announcement]) -> Span | None:
        """Where to go now, None to stay."""
        mine = Served(held.span, held.throughput)
        staying = [mine, *believed(each for each in swarm if each.account != self._account)]
        outlook = survey(self._num_blocks, staying, threshold=self._threshold)
        return should_move(outlook, mine, threshold=self._threshold, rng=self._rng)


def believed(swarm: Iterable[Announcement]) -> list[Served]:
    """What the nodes that stay serve, as fast as they can be believed to; those that are leaving serve nothing."""
    staying = [each for each in swarm if each.state in (NodeState.LOADING, NodeState.ONLINE)]
    most = most_believed(staying)
    return [Served(each.span, round(min(each.throughput, most / len(each.span)))) for each in staying]
