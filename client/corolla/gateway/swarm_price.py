"""The most that a text of the swarm's can cost, as nodes ask now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from corolla.gateway.backend import Ask
from corolla_core.protocol.errors import NoRoute
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement, NodeState

#: Seconds for which prices count that were looked up. A node keeps to the price a session began with.
LOOKED_UP = 10.0


class Priced(Protocol):
    """The part of `AsyncClient` that this needs. `max_price`: of a token and block; dearer nodes are never used.
    `max_waste`: wrongly guessed positions that may be paid for, for each token."""

    @property
    def model(self) -> Any: ...

    @property
    def max_price(self) -> int | None: ...

    @property
    def max_waste(self) -> float: ...

    async def nodes(self) -> list[Announcement]: ...


class SwarmPrice:
    """Every position of a text computed by the dearest nodes that may be used. What comes on top where a node falls
    away and another computes the history again is not in it: whoever runs the gateway bears that."""

    def __init__(self, client: Priced, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._looking = asyncio.Lock()
        self._looked_at = -LOOKED_UP
        self._nodes: list[Announcement] = []

    async def most(self, ask: Ask) -> Nectar:
        """Raises NoRoute, InvalidInput for a prompt that does not fit the model, NetworkError, ChainError."""
        async with self._looking:
            if self._clock() - self._looked_at >= LOOKED_UP:
                self._nodes = await self._client.nodes()
                self._looked_at = self._clock()
        model = self._client.model
        prompt = len(await model.run(model.prompt_ids, ask.prompt))
        each = dearest(self._nodes, model.num_blocks, at_most=self._client.max_price)
        guessed = int(ask.params.max_tokens * self._client.max_waste) + 1
        return Nectar(each * (prompt + ask.params.max_tokens + guessed))


def dearest(nodes: Iterable[Announcement], num_blocks: int, *, at_most: int | None) -> Nectar:
    """What one position costs where every block is served by the dearest node that may be used. Raises NoRoute."""
    prices = [-1] * num_blocks
    for node in nodes:
        price = node.price_per_token_block
        if node.state is NodeState.ONLINE and (at_most is None or price <= at_most):
            for block in node.span.blocks():
                prices[block] = max(prices[block], price)
    if missing := [block for block, price in enumerate(prices) if price < 0]:
        raise NoRoute("nobody serves some of the blocks", missing=missing)
    return Nectar(sum(prices))
