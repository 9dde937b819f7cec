"""Where the explorer looks: the DHT, the chain and a validator's books."""

from __future__ import annotations

import time
from collections.abc import Callable

from corolla_core.chain.indexer import Indexer
from corolla_core.chain.registry import Registry
from corolla_core.protocol.ids import ModelRoot
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.directory import Directory
from corolla_validator.explorer.books import Books, Shelf
from corolla_validator.explorer.ledger import Ledger
from corolla_validator.explorer.watch import ChainSight

_MIN_STAKE_SECONDS = 60.0


class NetworkSources:
    """See `watch.Sources`. For one model; `indexer` is loaded."""

    def __init__(
        self,
        directory: Directory,
        indexer: Indexer,
        registry: Registry,
        books: Books,
        *,
        model_root: ModelRoot,
        num_blocks: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._registry = registry
        self._indexer = indexer
        self._books = books
        self._model = model_root, num_blocks
        self._monotonic = monotonic
        self._ledger: Ledger | None = None
        self._min_stake = 0
        self._asked_at = float("-inf")

    async def announced(self) -> list[Announcement]:
        return await self._directory.lookup(*self._model, withdrawn=True)

    async def chain(self) -> ChainSight:
        # A poll that fails may have got part of the way, and what that brought is not told again.
        ledger, self._ledger = self._ledger, None
        update = await self._indexer.poll()
        if ledger is None or update.reverted:
            ledger = Ledger(self._indexer.events)
        else:
            for indexed in update.applied:
                ledger.add(indexed)
        self._ledger = ledger
        if self._monotonic() - self._asked_at >= _MIN_STAKE_SECONDS:
            self._min_stake = await self._registry.min_stake()
            self._asked_at = self._monotonic()
        return ChainSight(ledger, update.head, self._min_stake)

    async def shelf(self) -> Shelf:
        return await self._books.read()
