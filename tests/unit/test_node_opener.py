"""A node opens on chain what it is challenged to open, whatever its host, its endpoint and its challengers do."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from books import NOW
from node_peers import until
from test_node_archive import rows

from corolla_core.chain.demands import Demand
from corolla_core.chain.faults import ChallengeState, Opening, Side
from corolla_core.protocol.errors import ChainUnreachable, InsufficientFunds, InvalidInput, InvalidProof, RpcRefused
from corolla_core.protocol.ids import ZERO_ADDRESS, Hash32, TrancheId, address
from corolla_core.protocol.merkle import merkle_root, verify_merkle
from corolla_core.protocol.receipt import row_leaf
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.kept_rows import Place
from corolla_node.archive import Archive, ArchivedRows
from corolla_node.opener import MAX_AT_ONCE, Opener, prove

pytestmark = pytest.mark.anyio
NODE = address("0x" + "d0" * 20)
ASKED_IN = 60


def root(kept: ArchivedRows, side: Side) -> Hash32:
    of_side = kept.inputs if side is Side.INPUT else kept.outputs
    return merkle_root([row_leaf(kept.session, kept.pos_start + at, row) for at, row in enumerate(of_side)])


class FakeChain:
    """Challenges, and what became of each. `down`: the endpoint does not answer."""

    def __init__(self) -> None:
        self.demands: list[Demand] = []
        self.openings: dict[Hash32, Opening] = {}
        self.time = NOW
        self.down = self.no_logs = False
        self.refusals: list[Exception] = []
        self.sending = self.most_at_once = 0
        self.rows: dict[Hash32, bytes] = {}

    def challenge(self, number: int, position: int, side: Side = Side.OUTPUT, *, row_count: int = 4) -> Hash32:
        """Somebody wants to see a row of receipt `number`."""
        kept = rows(number)
        challenge = Hash32(bytes([number, position % 256, side]) + bytes(29))
        deadline = UnixTime(self.time + ASKED_IN)
        self.demands.append(Demand(challenge, NODE, ZERO_ADDRESS, kept.receipt, position, side, deadline))
        self.openings[challenge] = Opening(
            challenger=ZERO_ADDRESS,
            deadline=deadline,
            state=ChallengeState.OPEN,
            node=NODE,
            opened_at=UnixTime(self.time),
            session_id=kept.session,
            position=position,
            root=root(kept, side),
            index=position - kept.pos_start,
            size=row_count,
            bond=Nectar(7),
            tranche=TrancheId(bytes(32)),
        )
        return challenge

    def state(self, challenge: Hash32) -> ChallengeState:
        return self.openings[challenge].state

    def _check(self) -> None:
        if self.down:
            raise ChainUnreachable("down")

    async def news(self) -> list[Demand]:
        """Always all of them: an opener must bear being told again."""
        self._check()
        if self.no_logs:
            raise RpcRefused("no logs today")
        return list(self.demands)

    async def opening(self, challenge: Hash32) -> Opening:
        self._check()
        return self.openings[challenge]

    async def now(self) -> UnixTime:
        self._check()
        return UnixTime(self.time)

    async def open(self, challenge: Hash32, row: bytes, branch: Sequence[bytes]) -> None:
        self._check()
        if self.refusals:
            raise self.refusals.pop(0)
        self.sending += 1
        self.most_at_once = max(self.most_at_once, self.sending)
        await asyncio.sleep(0)
        self.sending -= 1
        asked = self.openings[challenge]
        assert self.time <= asked.deadline
        index, width, path, left = asked.index, asked.size, [], list(branch)
        while width > 1:
            if index ^ 1 < width:
                path.append((bool(index & 1), left.pop(0)))
            index, width = index // 2, (width + 1) // 2
        verify_merkle(asked.root, row_leaf(asked.session_id, asked.position, row), path)
        self.openings[challenge] = replace(asked, state=ChallengeState.ANSWERED)
        self.rows[challenge] = row


class World:
    """A node's disk and its index of places, which outlive the opener."""

    def __init__(self, folder: Path) -> None:
        self.chain = FakeChain()
        self.archive = Archive(folder, limit=20_000, clock=lambda: self.chain.time)
        self.places: dict[Hash32, Place] = {}
        self.opener = self.restart()

    def restart(self) -> Opener:
        self.opener = Opener(self.chain, self.archive, self._find, interval=0.001)
        return self.opener

    async def _find(self, receipt: Hash32) -> Place | None:
        return self.places.get(receipt)

    def keep(self, *numbers: int) -> None:
        for number in numbers:
            place = self.archive.keep(rows(number))
            assert place is not None
            self.places[rows(number).receipt] = place


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_row_is_opened_once_and_let_go(world: World) -> None:
    world.keep(1, 2)
    challenge = world.chain.challenge(1, 10)
    await world.opener.turn()
    assert world.chain.rows == {challenge: rows(1).outputs[2]}
    await world.opener.turn()
    assert (world.opener.answered, world.opener.pending, world.opener.missed) == (1, 0, 0)
    assert world.archive.pinned() == set()


async def test_several_challenges_are_answered_in_one_turn_a_few_at_a_time(world: World) -> None:
    world.keep(1, 2, 3)
    asked = [world.chain.challenge(n, 8 * n + at, side) for n in (1, 2, 3) for at in range(4) for side in Side]
    await world.opener.turn()
    assert {world.chain.state(each) for each in asked} == {ChallengeState.ANSWERED}
    assert world.opener.answered == 24
    assert 1 < world.chain.most_at_once <= MAX_AT_ONCE


async def test_an_outage_of_the_endpoint_loses_no_challenge(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    world.chain.down = True
    running = asyncio.create_task(world.opener.run())
    try:
        await asyncio.sleep(0.02)
        assert world.chain.state(challenge) is ChallengeState.OPEN
        world.chain.down = False
        await until(lambda: world.chain.state(challenge) is ChallengeState.ANSWERED)
    finally:
        running.cancel()


async def test_what_could_not_be_sent_is_sent_again(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    world.chain.refusals = [ChainUnreachable("gone again"), InsufficientFunds("no gas"), ValueError("nonsense")]
    for _ in range(3):
        await world.opener.turn()
        assert world.chain.state(challenge) is ChallengeState.OPEN
        assert world.archive.pinned() == {rows(1).receipt}
    await world.opener.turn()
    assert world.chain.state(challenge) is ChallengeState.ANSWERED


async def test_a_node_killed_between_challenge_and_answer_answers_after_its_restart(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8, Side.INPUT)
    world.chain.refusals = [ChainUnreachable("killed here")]
    await world.opener.turn()
    assert world.archive.pinned() == {rows(1).receipt}
    await world.restart().turn()
    assert world.chain.rows == {challenge: rows(1).inputs[0]}
    assert world.archive.pinned() == set()


async def test_challenged_rows_stay_while_the_rest_of_the_disk_is_used_up(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    world.chain.refusals = [ChainUnreachable("down")]
    await world.opener.turn()
    world.keep(*range(2, 60))
    await world.opener.turn()
    assert world.chain.state(challenge) is ChallengeState.ANSWERED


async def test_rows_that_are_not_here_cost_no_other_challenge_its_answer(world: World) -> None:
    world.keep(1)
    missing, here = world.chain.challenge(9, 72), world.chain.challenge(1, 8)
    await world.opener.turn()
    assert world.chain.state(here) is ChallengeState.ANSWERED
    assert (world.chain.state(missing), world.opener.pending) == (ChallengeState.OPEN, 1)
    world.chain.time += ASKED_IN + 1
    await world.opener.turn()
    await world.opener.turn()
    assert (world.opener.pending, world.opener.missed, world.opener.answered) == (0, 1, 1)


async def test_the_last_second_of_a_deadline_is_still_in_time(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    world.chain.time += ASKED_IN
    await world.opener.turn()
    assert world.chain.state(challenge) is ChallengeState.ANSWERED


async def test_a_challenge_somebody_else_answered_needs_nothing(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    world.chain.openings[challenge] = replace(world.chain.openings[challenge], state=ChallengeState.ANSWERED)
    await world.opener.turn()
    assert (world.chain.rows, world.opener.answered, world.opener.pending) == ({}, 0, 0)


async def test_an_answer_that_a_reorganisation_took_back_is_given_again(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    asked = world.chain.openings[challenge]
    await world.opener.turn()
    world.chain.openings[challenge] = asked
    await world.opener.turn()
    assert world.chain.state(challenge) is ChallengeState.ANSWERED


async def test_an_endpoint_that_refuses_logs_does_not_keep_back_the_answers(world: World) -> None:
    world.keep(1, 2)
    challenge = world.chain.challenge(1, 8)
    world.chain.refusals = [ChainUnreachable("not yet")]
    await world.opener.turn()
    world.chain.no_logs = True
    place = world.places[rows(2).receipt]
    world.archive.pin(rows(2).receipt, place)
    with pytest.raises(RpcRefused):
        await world.opener.turn()
    assert world.chain.state(challenge) is ChallengeState.ANSWERED
    assert rows(2).receipt in world.archive.pinned()  # a challenge of it may be in the logs that were refused


async def test_a_challenge_that_a_lagging_endpoint_does_not_know_yet_is_not_dropped(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    asked = world.chain.openings[challenge]
    world.chain.openings[challenge] = replace(asked, state=ChallengeState.NONE)
    await world.opener.turn()
    world.chain.demands.clear()
    world.chain.openings[challenge] = asked
    await world.opener.turn()
    assert world.chain.state(challenge) is ChallengeState.ANSWERED


async def test_a_challenge_that_is_gone_is_let_go_after_its_deadline(world: World) -> None:
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    world.chain.openings[challenge] = replace(world.chain.openings[challenge], state=ChallengeState.NONE)
    await world.opener.turn()
    assert world.opener.pending == 1
    world.chain.time += ASKED_IN + 1
    await world.opener.turn()
    assert (world.opener.pending, world.opener.missed) == (0, 0)


async def test_hostile_challenges_are_refused_and_harm_nothing(world: World) -> None:
    world.keep(1)
    far, before = world.chain.challenge(1, 2**64 - 1), world.chain.challenge(1, 0)
    wrong_root = world.chain.challenge(1, 9)
    world.chain.openings[wrong_root] = replace(world.chain.openings[wrong_root], root=Hash32(b"\x07" * 32))
    good = world.chain.challenge(1, 8)
    await world.opener.turn()
    assert set(world.chain.rows) == {good}
    assert world.opener.pending == 3
    for challenge, error in ((far, InvalidInput), (before, InvalidInput), (wrong_root, InvalidProof)):
        with pytest.raises(error):
            prove(rows(1), Side.OUTPUT, world.chain.openings[challenge])


class FullDisk(Archive):
    def pin(self, receipt: Hash32, place: Place) -> None:
        raise OSError(errno.ENOSPC, "full")


async def test_a_disk_too_full_to_put_rows_aside_still_answers(tmp_path: Path, world: World) -> None:
    world.archive = FullDisk(tmp_path / "full", limit=20_000, clock=lambda: world.chain.time)
    world.restart()
    world.keep(1)
    challenge = world.chain.challenge(1, 8)
    await world.opener.turn()
    assert world.chain.state(challenge) is ChallengeState.ANSWERED


async def test_rows_owed_to_the_chain_never_go_without_a_word(tmp_path: Path) -> None:
    now = float(NOW)
    archive = Archive(tmp_path, limit=20_000, window=1e9, owed=600, clock=lambda: now)
    for number in range(15):
        archive.keep(rows(number))
    assert archive.lost == 0
    for number in range(15, 60):
        archive.keep(rows(number))
    lost = archive.lost
    assert lost == sum(len(_record(tmp_path, number)) for number in range(60)) - archive.used
    now += 601
    for number in range(60, 70):
        archive.keep(rows(number))
    assert archive.lost == lost  # old enough to go
    tiny = Archive(tmp_path / "tiny", limit=100, owed=600, clock=lambda: now)
    assert tiny.keep(rows(1)) is None
    assert tiny.lost == len(_record(tmp_path, 1))


def _record(folder: Path, number: int) -> bytes:
    alone = folder / f"alone-{number}"
    Archive(alone, clock=lambda: float(NOW)).keep(rows(number))
    return next(alone.glob("*.rows")).read_bytes()
