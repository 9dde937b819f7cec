"""What a validator found of the weights nodes say they hold. For what a score is made of: see `doubt_of`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Row, select

from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.possession import TRIES, Doubt, Held
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import UnixTime
from corolla_core.store.schema import possessions
from corolla_core.store.store import Store

_MOST_WORDS = 200


@dataclass(frozen=True, slots=True)
class PossessionRecord:
    """One question and what came of it. `missing` of the `chunks` (`size` bytes in all) were not shown; `taken_ms` is
    None where no answer came; `why` is what the node said."""

    salt: Hash32
    node: Address
    span: Span
    chunks: int
    size: int
    outcome: Held
    missing: int
    deadline_ms: int
    taken_ms: int | None
    why: str
    asked_at: UnixTime


class PossessionLog:
    """Part of a validator's books."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(self, found: PossessionRecord) -> None:
        """Raises StoreError, also for a salt that was used before."""
        row = {
            "salt": found.salt,
            "node": found.node,
            "span_start": found.span.start,
            "span_end": found.span.end,
            "chunks": found.chunks,
            "size": found.size,
            "outcome": found.outcome.value,
            "missing": found.missing,
            "deadline_ms": found.deadline_ms,
            "taken_ms": found.taken_ms,
            "why": found.why[:_MOST_WORDS],
            "asked_at": found.asked_at,
        }
        with self._store.transaction() as connection:
            connection.execute(possessions.insert().values(row))

    def records(self, *, node: Address | None = None, limit: int | None = None) -> list[PossessionRecord]:
        """In the order they were asked; the latest `limit` of them."""
        query = select(possessions).order_by(possessions.c.asked_at.desc(), possessions.c.salt.desc())
        if node is not None:
            query = query.where(possessions.c.node == node)
        with self._store.transaction() as connection:
            rows = connection.execute(query if limit is None else query.limit(limit)).all()
        return [_record(row) for row in reversed(rows)]

    def doubt_of(self, node: Address) -> Doubt:
        """What the latest answers of a node say of it."""
        doubt = Doubt()
        for found in self.records(node=node, limit=TRIES):
            doubt = doubt.after(found.outcome)
        return doubt


def _record(row: Row[tuple[object, ...]]) -> PossessionRecord:
    return PossessionRecord(
        salt=Hash32(bytes(row.salt)),
        node=Address(row.node),
        span=Span(row.span_start, row.span_end),
        chunks=row.chunks,
        size=row.size,
        outcome=Held(row.outcome),
        missing=row.missing,
        deadline_ms=row.deadline_ms,
        taken_ms=row.taken_ms,
        why=row.why,
        asked_at=UnixTime(row.asked_at),
    )
