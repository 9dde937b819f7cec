"""How the explorer looks: at nodes that do not answer, at a chain that fails half way, at a validator's books."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from explorer_world import MIN_STAKE, MODEL, FakeNetwork, account, audited, hashed

from corolla_core.chain.indexer import Indexed, Update
from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.possession import Held
from corolla_core.protocol.reputation import ReputationTerms
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import UnixTime
from corolla_core.store.possessions import PossessionLog, PossessionRecord
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.messages import Info
from corolla_validator.explorer.books import Books
from corolla_validator.explorer.pulse import AT_ONCE, Pulse, Pulses
from corolla_validator.explorer.sources import NetworkSources

pytestmark = pytest.mark.anyio


class Registry:
    async def min_stake(self) -> int:
        return MIN_STAKE


class Index:
    """Takes up `coming` in polls of one event; the next poll fails after it took up one when `failing`."""

    def __init__(self, coming: list[Indexed]) -> None:
        self.coming = coming
        self.events: list[Indexed] = []
        self.reverted: tuple[Indexed, ...] = ()
        self.failing = False

    async def poll(self) -> Update:
        applied = [self.coming.pop(0)]
        self.events += applied
        if self.failing:
            self.failing = False
            raise ChainUnreachable("half way")
        reverted, self.reverted = self.reverted, ()
        return Update(reverted, tuple(applied), len(self.events))


def sources(index: Index) -> NetworkSources:
    return NetworkSources(None, index, Registry(), None, model_root=MODEL, num_blocks=30)  # type: ignore[arg-type]


async def test_events_that_came_with_a_poll_that_failed_are_not_lost() -> None:
    world = FakeNetwork.of_thirds()
    index = Index(list(world.events))
    looked = sources(index)
    await looked.chain()
    index.failing = True
    with pytest.raises(ChainUnreachable):
        await looked.chain()
    sight = await looked.chain()
    assert (len(sight.ledger.state.nodes), sight.head, sight.min_stake) == (3, 3, MIN_STAKE)


async def test_after_a_reorganisation_only_what_is_left_counts() -> None:
    world = FakeNetwork.of_thirds()
    index = Index(list(world.events))
    looked = sources(index)
    await looked.chain()
    index.reverted = (index.events.pop(),)
    sight = await looked.chain()
    assert list(sight.ledger.state.nodes) == [account(1)]


def possession(number: int, outcome: Held) -> PossessionRecord:
    salt = hashed(f"salt {number}")
    return PossessionRecord(salt, account(0), Span(0, 10), 4, 400, outcome, 0, 2000, 5, "", UnixTime(1000 + number))


async def test_the_books_are_read_anew_when_there_is_something_new_in_them(tmp_path: Path) -> None:
    with Store.open(tmp_path / "books.db") as store:
        books = Books(store, ReputationTerms(), clock=lambda: 1_800_000_000.0)
        empty = await books.read()
        assert (empty.audits, empty.failed, empty.weights) == ((), 0, {})
        for record in (audited(1, 0), audited(2, 0, failed=True, session=2)):
            ValidatorStore(store).record_audit(record)
        found = await books.read()
        assert (len(found.audits), found.sessions, found.failed) == (2, 2, 1)
        assert found.rated[account(0)].sessions == 2
        assert (await books.read()).audits is found.audits
        for number in range(3):
            PossessionLog(store).record(possession(number, Held.LATE))
        later = await books.read()
        assert later.weights == {account(0): (Held.LATE, True)}
        assert later.audits is found.audits


class Clinic:
    """Nodes, some of which answer only when they are `let_go`."""

    def __init__(self, stuck: set[Hash32]) -> None:
        self.stuck = stuck
        self.let_go = asyncio.Event()
        self.asked: list[Announcement] = []
        self.most = self.now = 0

    async def info(self, node: Announcement, *, seconds: float) -> Info:
        self.asked.append(node)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if node.cert_hash in self.stuck:
                await self.let_go.wait()
            await asyncio.sleep(0)
        finally:
            self.now -= 1
        return await FakeNetwork().info(node, seconds=seconds)


async def test_a_node_that_hangs_keeps_no_other_waiting_and_is_not_asked_twice_at_a_time() -> None:
    world = FakeNetwork.of_thirds()
    world.announce(0, Span(0, 10), cert_hash=hashed("stuck"))
    clinic, clock = Clinic({hashed("stuck")}), [0.0]
    pulses = Pulses(clinic, clock=lambda: clock[0])

    async def next_second(_seconds: float) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        clock[0] += 1.0
        if clock[0] >= 5.0:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await pulses.run(lambda: world.announcements, sleep=next_second)
    found = {one: beat.pulse(clock[0]) for one, beat in pulses.beats.items()}
    assert found.pop(account(0)) is Pulse.SILENT
    assert set(found.values()) == {Pulse.ANSWERS}
    assert [one.account for one in clinic.asked].count(account(0)) == 1


async def test_a_failure_is_forgotten_when_the_node_answers_again() -> None:
    world = FakeNetwork.of_thirds()
    world.dead = {account(0)}
    pulses, rounds = Pulses(world, clock=lambda: 0.0), [0]
    seen: list[int] = []

    async def again(_seconds: float) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        rounds[0] += 1
        seen.append(pulses.beats[account(0)].failures)
        world.dead = {account(0)} if rounds[0] < 3 else set()
        if rounds[0] == 5:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await pulses.run(lambda: world.announcements, sleep=again)
    assert seen == [1, 2, 3, 0, 0]


async def test_so_many_nodes_are_asked_at_a_time_and_one_that_is_gone_is_forgotten() -> None:
    world = FakeNetwork()
    for number in range(AT_ONCE + 10):
        world.announce(number, Span(0, 10), cert_hash=hashed("stuck"))
    clinic = Clinic({hashed("stuck")})
    pulses = Pulses(clinic, clock=lambda: 0.0)
    rounds = [0]

    async def again(_seconds: float) -> None:
        for _ in range(200):
            await asyncio.sleep(0)
        rounds[0] += 1
        clinic.let_go.set()
        world.announcements = world.announcements[:1]
        if rounds[0] == 3:  # what was under way is over, and forgotten after that
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await pulses.run(lambda: world.announcements, sleep=again)
    assert clinic.most == AT_ONCE
    assert list(pulses.beats) == [account(0)]
