"""What a client believes of the nodes' speed: what it saw, before what they say."""

from __future__ import annotations

import random

import pytest

from corolla.paces import MEMORY_SECONDS, Paces
from corolla.peers import Peers
from corolla.router import HOP_SECONDS, Leg, find_route
from corolla.standing import Standing
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, address
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.plausible import MOST_TIMES_MEDIAN

pytestmark = pytest.mark.anyio
ROOT, BLOCKS, TRUE_PACE = ModelRoot(bytes(32)), 8, 0.010
HONEST = [address(n.to_bytes(20, "big")) for n in range(1, 10)]
LIAR = address(bytes([0xEE]) * 20)
RTT = 0.02


def announced(account: Address, *, pace: float = TRUE_PACE, span: Span | None = None) -> Announcement:
    span = span or Span(0, BLOCKS)
    return Announcement(
        network="test",
        model_root=ROOT,
        span=span,
        account=account,
        peer_id="",
        host="127.0.0.1",
        port=1,
        cert_hash=Hash32(bytes(32)),
        price_per_token_block=1,
        numeric_class=NumericClass.FP32,
        wire_dtypes=("float32",),
        throughput=round(1000 / pace / len(span)),
        kv_free_tokens=100,
        state=NodeState.ONLINE,
        issued_at=0,
        expires_at=60_000,
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Swarm:
    """Nine honest nodes, and one that says it is a hundred times as fast as it is, which is as slow as any."""

    scored = True

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return [announced(LIAR, pace=TRUE_PACE / 100), *(announced(account) for account in HONEST)]

    def standing(self, account: Address) -> Standing:
        return Standing(score=0.9 if self.scored or account != LIAR else None)


async def sessions_of_the_liar(swarm: Swarm, clock: Clock, sessions: int, *, share: float = 1.0) -> list[bool]:
    peers = Peers(swarm, ROOT, BLOCKS, rtt=lambda _a: RTT, standing=swarm.standing, clock=clock, rng=random.Random(3))
    await peers.refresh()
    got = []
    for _ in range(sessions):
        found = peers.candidates(tokens=1, wire_dtype="float32", newcomers=peers.newcomers_turn(share))
        route = find_route(found, Span(0, BLOCKS))
        got.append(route[0].account == LIAR)
        for _step in range(8):  # it is in truth three times slower than the others
            pace = 3 * TRUE_PACE if route[0].account == LIAR else TRUE_PACE
            peers.took(route, HOP_SECONDS + RTT / 2 + BLOCKS * pace)
    return got


async def test_who_exaggerates_is_tried_once_and_then_left() -> None:
    got = await sessions_of_the_liar(Swarm(), Clock(), 50)
    assert got == [True] + [False] * 49


async def test_a_newcomer_that_exaggerates_gets_no_more_than_its_share_and_then_loses() -> None:
    swarm = Swarm()
    swarm.scored = False
    got = await sessions_of_the_liar(swarm, Clock(), 400, share=0.1)
    assert 1 <= sum(got) <= 0.1 * 400
    assert sum(got) == 1


async def test_what_was_seen_is_forgotten_in_time() -> None:
    clock = Clock()
    paces = Paces(clock)
    swarm = await Swarm().lookup(ROOT, BLOCKS)
    paces.announced(swarm)
    paces.took([(HONEST[0], BLOCKS)], 1.0)
    assert paces.of(HONEST[0]) > 2 * TRUE_PACE
    clock.now = MEMORY_SECONDS - 1
    paces.announced(swarm)
    assert paces.of(HONEST[0]) > 2 * TRUE_PACE
    clock.now = MEMORY_SECONDS
    paces.announced(swarm)
    assert paces.of(HONEST[0]) == pytest.approx(TRUE_PACE)


async def test_nobody_is_believed_beyond_what_is_plausible() -> None:
    paces = Paces()
    paces.announced(await Swarm().lookup(ROOT, BLOCKS))
    assert paces.of(LIAR) == pytest.approx(TRUE_PACE / MOST_TIMES_MEDIAN)


async def test_the_stranger_in_a_chain_is_blamed_for_its_delay_and_those_seen_before_are_not() -> None:
    paces = Paces()
    paces.announced(await Swarm().lookup(ROOT, BLOCKS))
    for _ in range(30):
        paces.took([(HONEST[0], 4)], 4 * TRUE_PACE)
    for _ in range(10):
        paces.took([(HONEST[0], 4), (HONEST[1], 4)], 4 * TRUE_PACE + 4 * 0.05)
    assert paces.of(HONEST[0]) == pytest.approx(TRUE_PACE, rel=0.15)
    assert paces.of(HONEST[1]) == pytest.approx(0.05, rel=0.15)


async def test_a_faster_node_than_it_says_is_found_out_too() -> None:
    paces = Paces()
    paces.announced(await Swarm().lookup(ROOT, BLOCKS))
    for _ in range(20):
        paces.took([(HONEST[0], BLOCKS)], BLOCKS * TRUE_PACE / 4)
    assert paces.of(HONEST[0]) == pytest.approx(TRUE_PACE / 4, rel=0.2)
    assert paces.of(HONEST[1]) == pytest.approx(TRUE_PACE)


async def test_a_step_that_took_no_time_teaches_nothing_absurd() -> None:
    peers = Peers(Swarm(), ROOT, BLOCKS, rtt=lambda _a: RTT)
    await peers.refresh()
    leg = Leg(HONEST[0], Span(0, BLOCKS), announced(HONEST[0]).price)
    for _ in range(100):
        peers.took([leg], 0.0)
    (candidate,) = (c for c in peers.candidates(tokens=1, wire_dtype="float32") if c.account == HONEST[0])
    assert candidate.seconds_per_block > 0
