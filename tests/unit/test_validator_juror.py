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
from corolla_validator.juror import Juror

pytestmark = pytest.mark.anyio
ME = address(b"\x01" * 20)


class Court:
    """Disputes that wait for this juror; a commitment is mined once `block` of them are sent."""

    def __init__(self, phases: list[Phase], *, block: int) -> None:
        self.phases = phases
        self.block = asyncio.Barrier(block)
        self.sent: list[tuple[str, int]] = []
        self.trouble: dict[int, Exception] = {}

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

    async def settle(self, number: int, jurors: list[Address]) -> None:
        self.sent.append(("settle", number))

    async def credit(self, who: Address) -> int:
        return 0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "books.db") as store:
        yield store


def juror(court: Court, store: Store) -> Juror:
    async def faulty(node: Address, receipt: Hash32) -> Vote:
        return Vote.FAULTY

    return Juror(court, ME, store, examine=faulty, tell=lambda event: None)  # type: ignore[arg-type]


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
