"""Where the explorer looks: the DHT, the chain and a validator's books."""

from __future__ import annotations

import time
from collections.abc import Callable

from corolla_core.chain.indexer import Indexer
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
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
        chain: Chain,
        indexer: Indexer,
        books: Books,
        *,
        model_root: ModelRoot,
        num_blocks: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._registry = Registry(chain)
        self._indexer = indexer
        self._books = books
        self._model = model_root, num_blocks
        self._monotonic = monotonic
        self._ledger = Ledger(indexer.events)
        self._min_stake = 0
        self._asked_at = float("-inf")

    async def announced(self) -> list[Announcement]:
        return await self._directory.lookup(*self._model, withdrawn=True)

    async def chain(self) -> ChainSight:
        update = await self._indexer.poll()
        if update.reverted:
            self._ledger = Ledger(self._indexer.events)
        else:
            for indexed in update.applied:
                self._ledger.add(indexed)
        if self._monotonic() - self._asked_at >= _MIN_STAKE_SECONDS:
            self._min_stake = await self._registry.min_stake()
            self._asked_at = self._monotonic()
        return ChainSight(self._ledger, update.head, self._min_stake)

    async def shelf(self) -> Shelf:
        return await self._books.read()
