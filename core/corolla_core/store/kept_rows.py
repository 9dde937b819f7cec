"""Where on a node's disk the rows under its receipts lie."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, select

from corolla_core.protocol.ids import Hash32
from corolla_core.store.schema import kept_rows
from corolla_core.store.store import Store


@dataclass(frozen=True, slots=True)
class Place:
    """`size` bytes from `start` on in the file of segment number `segment`."""

    segment: int
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


class RowIndex:
    """Receipt hashes to places. Noting one twice is noting it once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def note(self, places: Iterable[tuple[Hash32, Place]]) -> None:
        with self._store.transaction() as connection:
            for receipt_hash, place in places:
                here = kept_rows.c.receipt_hash == receipt_hash
                if connection.execute(select(kept_rows.c.receipt_hash).where(here)).first() is None:
                    row = {
                        "receipt_hash": receipt_hash,
                        "segment": place.segment,
                        "start": place.start,
                        "size": place.size,
                    }
                    connection.execute(kept_rows.insert().values(row))

    def place(self, receipt_hash: Hash32) -> Place | None:
        with self._store.transaction() as connection:
            row = connection.execute(select(kept_rows).where(kept_rows.c.receipt_hash == receipt_hash)).first()
        return None if row is None else Place(row.segment, row.start, row.size)

    def last(self) -> Place | None:
        """The last place noted; what lies behind it was written by a process that did not live to note it."""
        query = select(kept_rows).order_by(kept_rows.c.segment.desc(), kept_rows.c.start.desc()).limit(1)
        with self._store.transaction() as connection:
            row = connection.execute(query).first()
        return None if row is None else Place(row.segment, row.start, row.size)

    def forget(self, *, before_segment: int) -> int:
        """Drop what points into segments that are gone; returns how many."""
        with self._store.transaction() as connection:
            return connection.execute(delete(kept_rows).where(kept_rows.c.segment < before_segment)).rowcount
