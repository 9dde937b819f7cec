"""A juror does what is due in every dispute at once: each has its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corolla_core.chain.disputes import Outcome, Phase, Vote
from corolla_core.protocol.errors import ChainUnreachable, TransactionReverted
from corolla_core.protocol.ids import Address, Hash32, address
from corolla_core.store.store import Store
from corolla_validator.juror import Examine, Juror

pytestmark = pytest.mark.anyio
ME = address(b"\x01" * 20)


class Court:
    """Disputes that wait for this juror; a commitment is mined once `block` of them are sent."""

    def __init__(self, phases: list[Phase], *, block: int) -> None:
        self.phases = phases
        self.block = asyncio.Barrier(block)
        self.sent: list[tuple[str, int]] = []
        self.trouble: dict[int, Exception] = {}
        self.time = 0
        self.chain = self

    async def count(self) -> int:
        return len(self.phases)

    async def dispute(self, number: int) -> Any:
        if number in self.trouble:
            raise self.trouble[number]
        return SimpleNamespace(round=0, node=ME, receipt_hash=Hash32(bytes(32)), outcome=Outcome.FAULTY)

    async def phase(self, number: int) -> Phase:
        return self.phases[number - 1]

    async def ballot(self, number: int, round_: int, who: Address) -> Any:
        return SimpleNamespace(seats=1, commitment=Hash32(bytes(32)), vote=Vote.NONE)

    async def commit(self, number: int, vote: Vote, salt: Hash32) -> None:
        self.sent.append((vote.name, number))
        await self.block.wait()

    async def reveal(self, number: int, vote: Vote, salt: Hash32) -> None:
        self.sent.append(("reveal", number))

    async def round(self, number: int, round_: int) -> Any:
        return SimpleNamespace(commit_until=100)

    async def parameters(self) -> Any:
        return SimpleNamespace(commit_period=60)

    async def now(self) -> int:
        return self.time

    async def settle(self, number: int, jurors: list[Address]) -> None:
        self.sent.append(("settle", number))

    async def credit(self, who: Address) -> int:
        return 0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "books.db") as store:
        yield store


async def faulty(node: Address, receipt: Hash32) -> Vote:
    return Vote.FAULTY


def juror(court: Court, store: Store, examine: Examine = faulty) -> Juror:
    return Juror(court, ME, store, examine=examine, tell=lambda event: None)  # type: ignore[arg-type]


async def test_a_vote_that_is_not_mined_yet_keeps_no_other_dispute_waiting(store: Store) -> None:
    court = Court([Phase.COMMITTING] * 3, block=3)
    async with asyncio.timeout(5):
        assert await juror(court, store).round()
    assert sorted(court.sent) == [("FAULTY", 1), ("FAULTY", 2), ("FAULTY", 3)]


async def test_trouble_in_one_dispute_is_told_after_the_others_are_done(store: Store) -> None:
    court = Court([Phase.COMMITTING, Phase.CONCLUDED, Phase.COMMITTING], block=1)
    court.trouble = {1: TransactionReverted("late", reason="WrongPhase"), 3: ChainUnreachable("down")}
    sits = juror(court, store)
    with pytest.raises(ChainUnreachable):
        await sits.round()
    assert court.sent == [("settle", 2)]
    court.trouble, court.block = {}, asyncio.Barrier(2)
    assert await sits.round()
    assert sorted(court.sent) == [("FAULTY", 1), ("FAULTY", 3), ("settle", 2)]  # what is over is not taken up again


async def test_a_long_judgement_keeps_no_other_vote_from_being_revealed_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corolla_validator.juror.PATIENCE", 0.01)
    judged = asyncio.Event()

    async def slowly(node: Address, receipt: Hash32) -> Vote:
        if len(court.sent) > 0:  # the second dispute
            await judged.wait()
        return Vote.FAULTY

    court = Court([Phase.COMMITTING, Phase.UNKNOWN], block=1)
    sits = juror(court, store, slowly)
    await sits.round()
    court.phases = [Phase.REVEALING, Phase.COMMITTING]
    await sits.round()
    await sits.round()
    assert court.sent == [("FAULTY", 1), ("reveal", 1), ("reveal", 1)]
    judged.set()
    await sits.round()
    assert ("FAULTY", 2) in court.sent


async def test_rows_that_cannot_be_had_are_asked_for_until_half_of_the_time_is_over(store: Store) -> None:
    votes = [Vote.UNAVAILABLE, Vote.FAULTY, Vote.UNAVAILABLE, Vote.UNAVAILABLE]

    async def examine(node: Address, receipt: Hash32) -> Vote:
        return votes.pop(0)

    court = Court([Phase.COMMITTING], block=1)
    sits = juror(court, store, examine)
    await sits.round()
    assert court.sent == []
    await sits.round()
    assert court.sent == [("FAULTY", 1)]
    court.phases = [Phase.CONCLUDED, Phase.COMMITTING]
    await sits.round()
    court.time = 70
    await sits.round()
    assert ("UNAVAILABLE", 2) in court.sent
