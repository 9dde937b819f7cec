"""Whatever fails, whenever it starts again: a publisher reveals what it committed to, once, and settles in the end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from random import Random
from uuid import uuid4

import pytest
from fake_oracle import RULES, FakeOracle
from hypothesis import given, settings
from hypothesis import strategies as st

from corolla_core.chain.reputation import Phase
from corolla_core.protocol.errors import ChainUnreachable, CorollaError
from corolla_core.protocol.ids import Address, Hash32, address
from corolla_core.protocol.reputation import History
from corolla_core.protocol.units import Nectar
from corolla_core.store.score_store import ScoreStore
from corolla_core.store.store import Store
from corolla_validator.publisher import Publisher
from corolla_validator.scores import Rated

NODES = [address(bytes([n]) * 20) for n in range(1, 6)]


class Killed(BaseException):
    """The process dies in the middle of a call."""


class Story:
    """One validator through outages and deaths, and where the chain is not `steady` transactions mined late and blocks
    taken back, all from a seed."""

    def __init__(self, seed: int, store: Store, *, steady: bool = False) -> None:
        self.rng = Random(seed)
        self.me = address(uuid4().bytes + bytes(4))  # the database is shared
        self.store = store
        self.oracle = FakeOracle(self.me)
        self.calm = False
        self.down = False
        self.events: list[dict[str, object]] = []
        self.publisher = self.started()
        self.oracle.before, self.oracle.after = self.lose, self.lose
        self.steady = steady
        self.oracle.held_back = lambda: not (self.calm or steady) and self.rng.random() < 0.15

    def started(self) -> Publisher:
        """A process that knows what is in the database, and nothing else."""
        return Publisher(
            self.oracle,
            self.me,
            self.store,
            ScoreStore(self.store, oracle=NODES[0], validator=self.me),
            rated=self.rated,
            stake=self.stake,
            hurry=self.hurry,
            salt=lambda: Hash32(self.rng.randbytes(32)),
            clock=lambda: self.oracle.time,
            tell=self.events.append,
        )

    def lose(self) -> None:
        if self.calm:
            return
        if self.down or self.rng.random() < 0.1:
            raise ChainUnreachable("down")
        if self.rng.random() < 0.05:
            raise Killed

    async def rated(self) -> Mapping[Address, Rated]:
        """Other scores every time: what is committed to must not depend on who asks when."""
        await asyncio.sleep(0)
        known = self.rng.sample(NODES, self.rng.randint(0 if not self.calm else 1, len(NODES)))
        return {node: Rated(node, History(), 1, self.rng.randrange(65_536), False) for node in known}

    async def stake(self) -> Nectar:
        poor = not self.calm and self.rng.random() < 0.1
        return Nectar(0) if poor else RULES.min_validator_stake

    async def hurry(self) -> None:
        self.oracle.mine_pending()

    async def step(self) -> None:
        held = self.oracle.held
        match self.rng.randrange(8):
            case 0:
                self.publisher = self.started()
            case 1:
                self.down = self.rng.random() < 0.5
            case 2:
                self.oracle.mine_pending()
            case 3:
                self.oracle.others_settle(self.rng.sample(NODES, 2), self.oracle.epoch - 1)
            case 4:
                self.oracle.time += self.rng.choice([10, 35, 120])
            case _:
                self.oracle.time += self.rng.randint(1, 8)
        try:
            await self.publisher.round()
        except CorollaError:
            pass
        except Killed:
            self.publisher = self.started()
        if not self.steady and self.rng.random() < 0.05 and self.oracle.held.epoch == self.oracle.epoch:
            self.oracle.held = held  # the block with our transaction is taken back

    async def end(self) -> int:
        """Nothing fails from now on: the next whole epoch is committed, revealed and settled. Returns which."""
        self.calm = True
        self.oracle.mine_pending()
        self.oracle.time = 100.0 * self.oracle.epoch
        calm = self.oracle.epoch
        for _ in range(30):
            await self.publisher.round()
            self.oracle.time += 5
        return calm


async def live(seed: int, store: Store) -> None:
    story = Story(seed, store)
    for _ in range(story.rng.randint(10, 80)):
        await story.step()
    oracle = story.oracle
    meant = defaultdict(set)
    for epoch, _taken, commitment in oracle.commits:
        meant[epoch].add(commitment)
    assert all(len(commitments) == 1 for commitments in meant.values()), "two different sheets for one epoch"
    for epoch, sheet, _taken in oracle.reveals:
        assert sheet.commitment(epoch, story.me) in meant[epoch], "revealed what it never committed to"
    calm = await story.end()
    ((epoch, sheet, taken),) = [reveal for reveal in oracle.reveals if reveal[0] == calm]
    assert taken
    assert all(oracle.settled[node].epoch == epoch for node in sheet.nodes)
    assert oracle.phase is Phase.COMMIT


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store.open("sqlite://") as opened:
        yield opened


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_fails_scores_are_revealed_as_committed_and_the_next_calm_epoch_is_settled(
    store: Store, seed: int
) -> None:
    asyncio.run(live(seed, store))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_where_what_is_mined_stays_nothing_is_even_sent_twice(store: Store, seed: int) -> None:
    async def run() -> None:
        story = Story(seed, store, steady=True)
        for _ in range(60):
            await story.step()
        committed = [meant for meant, _taken, _commitment in story.oracle.commits]
        revealed = [epoch for epoch, _sheet, _taken in story.oracle.reveals]
        assert len(committed) == len(set(committed))
        assert len(revealed) == len(set(revealed))

    asyncio.run(run())
