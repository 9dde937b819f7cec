"""Where an event indexer keeps its place."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, delete, select

from corolla_core.store.schema import index_blocks
from corolla_core.store.store import Store

Row = tuple[int, bytes, bytes]
"""A block: its number, its hash, and its events as the indexer wrote them."""


class IndexStore:
    """The blocks one named index has applied. Several indexes share a database under different names."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    async def blocks(self) -> list[Row]:
        """Every kept block, lowest first."""
        return await self._store.run(self._blocks)

    async def replace(self, *, above: int, blocks: Sequence[Row], forget: Sequence[int] = ()) -> None:
        """In one transaction: drop blocks numbered over `above` and those in `forget`, then keep `blocks`."""
        await self._store.run(self._replace, above, list(blocks), list(forget))

    def _blocks(self) -> list[Row]:
        query = select(index_blocks).where(index_blocks.c.name == self._name).order_by(index_blocks.c.number)
        with self._store.transaction() as connection:
            rows = connection.execute(query).all()
        return [(row.number, bytes(row.hash), bytes(row.events)) for row in rows]

    def _replace(self, above: int, blocks: list[Row], forget: list[int]) -> None:
        mine = index_blocks.c.name == self._name
        rows = [{"name": self._name, "number": n, "hash": digest, "events": events} for n, digest, events in blocks]
        with self._store.transaction() as connection:
            connection.execute(delete(index_blocks).where(and_(mine, index_blocks.c.number > above)))
            for start in range(0, len(forget), 500):
                some = forget[start : start + 500]
                connection.execute(delete(index_blocks).where(and_(mine, index_blocks.c.number.in_(some))))
            if rows:
                connection.execute(index_blocks.insert(), rows)
