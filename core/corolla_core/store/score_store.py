"""What a validator must not forget of its scores: what it committed to, until it is revealed and settled."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, Row, select

from corolla_core.protocol.ids import Address, Hash32
from corolla_core.store.schema import score_sheets
from corolla_core.store.store import Store


@dataclass(frozen=True, slots=True)
class SealedScores:
    """Scores in 1/65535 of nodes in ascending order, and the salt they are committed to with."""

    nodes: tuple[Address, ...]
    scores: tuple[int, ...]
    salt: Hash32


class ScoreStore:
    """The scores of one validator at one oracle, by epoch."""

    def __init__(self, store: Store, *, oracle: Address, validator: Address) -> None:
        self._store = store
        self._mine = {"oracle": oracle, "validator": validator}
        self._here = (score_sheets.c.oracle == oracle) & (score_sheets.c.validator == validator)

    def seal(self, epoch: int, sealed: SealedScores) -> SealedScores:
        """Keep scores before they are committed to: without their salt they could never be revealed. The first of an
        epoch stay, and are returned."""
        here = self._here & (score_sheets.c.epoch == epoch)
        packed = msgspec.msgpack.encode((sealed.nodes, sealed.scores))

        def work(connection: Connection) -> SealedScores:
            known = connection.execute(select(score_sheets).where(here)).first()
            if known is not None:
                return _sealed(known)
            row = {**self._mine, "epoch": epoch, "scores": packed, "salt": sealed.salt}
            connection.execute(score_sheets.insert().values(row))
            return sealed

        return self._store.atomically(work)

    def sealed(self, epoch: int) -> SealedScores | None:
        query = select(score_sheets).where(self._here, score_sheets.c.epoch == epoch)
        with self._store.transaction() as connection:
            row = connection.execute(query).first()
        return None if row is None else _sealed(row)

    def newest_sealed(self, *, before: int) -> tuple[int, SealedScores] | None:
        """The scores of the last epoch before this one that any were kept of."""
        query = select(score_sheets).where(self._here, score_sheets.c.epoch < before)
        with self._store.transaction() as connection:
            row = connection.execute(query.order_by(score_sheets.c.epoch.desc()).limit(1)).first()
        return None if row is None else (row.epoch, _sealed(row))


def _sealed(row: Row[tuple[object, ...]]) -> SealedScores:
    nodes, scores = msgspec.msgpack.decode(row.scores, type=tuple[tuple[str, ...], tuple[int, ...]])
    return SealedScores(tuple(map(Address, nodes)), scores, Hash32(bytes(row.salt)))
