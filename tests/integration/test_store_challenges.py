"""What a validator's book of challenges promises, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace

from books import NOW, PAYEE, PAYER, session_id
from databases import database, postgres_server, store

from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.units import UnixTime
from corolla_core.store.challenges import ChallengeBook, ChallengeRecord, Demanded
from corolla_core.store.store import Store

__all__ = ["database", "postgres_server", "store"]


def challenge(number: int, *, node: Address = PAYEE.address, at: int = 0) -> ChallengeRecord:
    return ChallengeRecord(Hash32(bytes([number]) * 32), node, session_id(number), Demanded.SENT, UnixTime(NOW + at))


def test_challenges_are_unfinished_until_they_come_to_an_end(store: Store) -> None:
    book = ChallengeBook(store)
    late, early, other = challenge(1, at=5), challenge(2), challenge(3, node=PAYER.address, at=9)
    for each in (late, early, other, early):
        book.record(each)
    assert book.unfinished() == [early, late, other]
    opened = replace(early, state=Demanded.OPENED, changed_at=UnixTime(NOW + 20))
    book.record(opened)
    book.record(replace(other, state=Demanded.OPEN))
    assert book.unfinished() == [late, replace(other, state=Demanded.OPEN)]
    assert book.of_node(PAYEE.address) == [late, opened]
    book.forget(late.challenge)
    assert book.of_node(PAYEE.address) == [opened]
