"""A publisher's epoch, call by call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fake_oracle import RULES, FakeOracle

from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.ids import Address, Hash32, address
from corolla_core.protocol.reputation import History
from corolla_core.protocol.units import Nectar
from corolla_core.store.score_store import ScoreStore
from corolla_core.store.store import Store
from corolla_validator.publisher import LOOK_AGAIN_SECONDS, MOST_GAS, Publisher
from corolla_validator.scores import Rated

pytestmark = pytest.mark.anyio
ME = address(b"\xff" * 20)
ORACLE = address(b"\xee" * 20)


def nodes(count: int) -> list[Address]:
    return [address(n.to_bytes(20, "big")) for n in range(1, count + 1)]


class Validator:
    """A publisher and what it is asked and told."""

    def __init__(self, store: Store) -> None:
        self.oracle = FakeOracle(ME)
        self.store = store
        self.books = ScoreStore(store, oracle=ORACLE, validator=ME)
        self.scores = dict.fromkeys(nodes(3), 50_000)
        self.on_probation: set[Address] = set()
        self.at_stake = RULES.min_validator_stake
        self.events: list[dict[str, object]] = []
        self.rated_times = 0
        self.hurried = 0
        self.wall: float | None = None
        self.restart()

    def restart(self) -> None:
        self.publisher = Publisher(
            self.oracle,
            ME,
            self.store,
            self.books,
            rated=self._rated,
            stake=self._stake,
            hurry=self._hurry,
            salt=lambda: Hash32(bytes([len(self.events) + self.rated_times]) * 32),
            clock=lambda: self.oracle.time if self.wall is None else self.wall,
            tell=self.events.append,
        )

    async def until(self, time: float) -> None:
        while self.oracle.time < time:
            await self.publisher.round()
            self.oracle.time += 5

    def told(self) -> list[object]:
        return [event["event"] for event in self.events]

    async def _rated(self) -> Mapping[Address, Rated]:
        self.rated_times += 1
        return {node: Rated(node, History(), 1, s, node in self.on_probation) for node, s in self.scores.items()}

    async def _stake(self) -> Nectar:
        return self.at_stake

    async def _hurry(self) -> None:
        self.hurried += 1


@pytest.fixture
def validator(tmp_path: Path) -> Iterator[Validator]:
    with Store.open(tmp_path / "books.db") as store:
        yield Validator(store)


async def test_an_epoch_is_committed_revealed_and_settled(validator: Validator) -> None:
    await validator.until(115)
    assert validator.told() == ["scores committed", "scores revealed", "scores committed", "scores settled"]
    ((_epoch, sheet, taken),) = validator.oracle.reveals
    assert taken
    assert dict(zip(sheet.nodes, sheet.scores, strict=True)) == validator.scores
    assert {node: found.score for node, found in validator.oracle.settled.items()} == validator.scores


async def test_what_was_committed_to_is_revealed_after_a_restart_whatever_was_found_since(validator: Validator) -> None:
    await validator.publisher.round()
    before = dict(validator.scores)
    validator.scores = dict.fromkeys(validator.scores, 1)
    validator.restart()
    await validator.until(75)
    ((_epoch, sheet, taken),) = validator.oracle.reveals
    assert taken
    assert dict(zip(sheet.nodes, sheet.scores, strict=True)) == before
    assert validator.rated_times == 1


async def test_a_validator_that_dies_before_its_commitment_arrives_sends_the_same_one(validator: Validator) -> None:
    def dead() -> None:
        if validator.rated_times:
            raise ChainUnreachable("down")

    validator.oracle.before = dead
    with pytest.raises(ChainUnreachable):
        await validator.publisher.round()
    kept = validator.books.sealed(1)
    assert kept is not None
    assert validator.oracle.commits == []
    validator.oracle.before = lambda: None
    validator.scores = dict.fromkeys(validator.scores, 1)
    validator.restart()
    await validator.until(75)
    ((_epoch, sheet, taken),) = validator.oracle.reveals
    assert (sheet.scores, sheet.salt, taken) == (kept.scores, kept.salt, True)


async def test_nobody_off_probation_means_nothing_said_and_nothing_sent(validator: Validator) -> None:
    validator.on_probation = set(validator.scores)
    await validator.until(60)
    assert (validator.oracle.commits, validator.events) == ([], [])
    assert validator.rated_times <= 60 / LOOK_AGAIN_SECONDS
    validator.on_probation.pop()
    await validator.until(210)
    assert len(validator.oracle.settled) == 1


async def test_a_validator_without_stake_publishes_nothing_and_says_so_once(validator: Validator) -> None:
    validator.at_stake = Nectar(RULES.min_validator_stake - 1)
    await validator.until(160)
    assert validator.events == [{"event": "no voice", "stake": "0.000000000000000099", "needed": "0.0000000000000001"}]
    assert (validator.oracle.commits, validator.rated_times) == ([], 0)
    validator.at_stake = RULES.min_validator_stake
    await validator.until(275)
    assert "scores revealed" in validator.told()


async def test_a_commitment_that_is_not_ours_is_not_revealed_and_is_told_of_once(validator: Validator) -> None:
    await validator.publisher.round()
    validator.oracle.held = validator.oracle.held.__class__(1, Hash32(b"\x01" * 32), False)
    await validator.until(95)
    assert validator.oracle.reveals == []
    assert validator.told() == ["scores committed", "scores lost"]


async def test_another_validator_that_settles_first_leaves_nothing_to_do(validator: Validator) -> None:
    await validator.until(100)
    validator.oracle.others_settle(validator.scores, 1)
    await validator.until(120)
    assert validator.oracle.batches == []
    assert "scores settled" not in validator.told()


async def test_many_nodes_are_settled_in_batches_that_fit_the_gas(validator: Validator) -> None:
    validator.scores = dict.fromkeys(nodes(40), 9)
    validator.oracle.gas_a_node = MOST_GAS // 7
    await validator.until(110)
    assert max(validator.oracle.batches) <= 7
    assert sum(validator.oracle.batches) == len(validator.oracle.settled) == 40


async def test_a_settlement_beyond_a_blocks_gas_is_made_smaller(validator: Validator) -> None:
    validator.scores = dict.fromkeys(nodes(16), 9)
    validator.oracle.gas_a_node, validator.oracle.block_gas = 10, 50
    await validator.until(110)
    assert validator.oracle.batches == [4, 4, 4, 4]


async def test_nodes_with_too_few_ratings_do_not_keep_the_others_from_being_settled(validator: Validator) -> None:
    await validator.until(100)
    lonely = nodes(1)[0]
    del validator.oracle.rated[1, lonely]
    await validator.until(115)
    assert set(validator.oracle.settled) == set(validator.scores) - {lonely}


async def test_an_epoch_settled_is_not_asked_about_again(validator: Validator) -> None:
    await validator.until(115)
    before = validator.oracle.reads
    await validator.publisher.round()
    assert validator.oracle.reads - before <= 2  # the epoch, and our seat in it


async def test_a_chain_that_stands_still_is_told_to_move_when_a_phase_is_over(validator: Validator) -> None:
    await validator.publisher.round()
    assert validator.hurried == 0
    validator.wall = 61.0
    await validator.publisher.round()
    assert validator.hurried == 1
