"""Which rows a validator demanded on chain, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Row, delete, select, update

from corolla_core.protocol.ids import Address, Hash32, SessionId
from corolla_core.protocol.units import UnixTime
from corolla_core.store.schema import challenges
from corolla_core.store.store import Store


class Demanded(StrEnum):
    """`SENT`: perhaps on chain; `OPEN`: on chain, and waiting; the others are ends. `OPENED` rows were withheld first.
    `LAPSED` ones were not opened either, but fell into an outage the node was punished for already."""

    SENT = "sent"
    OPEN = "open"
    OPENED = "opened"
    PUNISHED = "punished"
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class ChallengeRecord:
    """A challenge of ours. `changed_at` is when it came into its state."""

    challenge: Hash32
    node: Address
    session: SessionId
    state: Demanded
    changed_at: UnixTime


class ChallengeBook:
    """A validator's challenges. What is on record survives a crash."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(self, entry: ChallengeRecord) -> None:
        """Keep a challenge, or its new state."""
        here = challenges.c.challenge_id == entry.challenge
        values = {"state": entry.state.value, "changed_at": entry.changed_at}

        def work(connection: Connection) -> None:
            if connection.execute(update(challenges).where(here).values(values)).rowcount == 0:
                row = {"challenge_id": entry.challenge, "node": entry.node, "session_id": entry.session}
                connection.execute(challenges.insert().values(row | values))

        self._store.atomically(work)

    def forget(self, challenge: Hash32) -> None:
        """It never came to be."""
        with self._store.transaction() as connection:
            connection.execute(delete(challenges).where(challenges.c.challenge_id == challenge))

    def unfinished(self) -> list[ChallengeRecord]:
        """Those to be followed, the longest in their state first."""
        query = select(challenges).where(challenges.c.state.in_([Demanded.SENT.value, Demanded.OPEN.value]))
        with self._store.transaction() as connection:
            rows = connection.execute(query.order_by(challenges.c.changed_at, challenges.c.challenge_id)).all()
        return [_record(row) for row in rows]

    def of_node(self, node: Address) -> list[ChallengeRecord]:
        """All that a node was asked for, in order of their last change."""
        query = select(challenges).where(challenges.c.node == node)
        with self._store.transaction() as connection:
            rows = connection.execute(query.order_by(challenges.c.changed_at, challenges.c.challenge_id)).all()
        return [_record(row) for row in rows]


def _record(row: Row[tuple[object, ...]]) -> ChallengeRecord:
    return ChallengeRecord(
        Hash32(bytes(row.challenge_id)),
        Address(row.node),
        SessionId(bytes(row.session_id)),
        Demanded(row.state),
        UnixTime(row.changed_at),
    )
