"""Which of the nodes announced a session may use."""

from __future__ import annotations

import random
from time import time

import pytest

from corolla.peers import FULL_SECONDS, Peers
from corolla.router import Preference, find_route
from corolla.standing import NEUTRAL_SCORE, Standing
from corolla_core.protocol.errors import OutOfCapacity, PeerUnreachable
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, address, address_bytes
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement, NodeState

pytestmark = pytest.mark.anyio
ROOT = ModelRoot(bytes(32))
CHEAP, DEAR = (address(bytes([n]) * 20) for n in (1, 2))


def announced(account: Address, *, price: int, room: int) -> Announcement:
    now = int(time() * 1000)
    return Announcement(
        network="test",
        model_root=ROOT,
        span=Span(0, 4),
        account=account,
        peer_id="",
        host="127.0.0.1",
        port=1,
        cert_hash=Hash32(bytes(32)),
        price_per_token_block=price,
        numeric_class=NumericClass.FP32,
        wire_dtypes=("float32",),
        throughput=100_000,
        kv_free_tokens=room,
        state=NodeState.ONLINE,
        issued_at=now,
        expires_at=now + 60_000,
    )


class Listed:
    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return [announced(CHEAP, price=10, room=100), announced(DEAR, price=11, room=400)]


async def usable(*, tokens: int = 1, batch: int = 1, max_price: int | None = None) -> list[Address]:
    peers = Peers(Listed(), ROOT, 4, rtt=lambda _account: None)
    await peers.refresh()
    found = peers.candidates(tokens=tokens, batch=batch, wire_dtype="float32", max_price=max_price)
    return [candidate.account for candidate in found]


async def test_a_node_needs_room_for_every_row_of_a_batch() -> None:
    assert await usable(tokens=100) == [CHEAP, DEAR]
    assert await usable(tokens=100, batch=4) == [DEAR]
    assert await usable(tokens=100, batch=5) == []


async def test_a_node_that_asks_more_than_the_highest_price_is_not_used() -> None:
    assert await usable(max_price=11) == [CHEAP, DEAR]
    assert await usable(max_price=10) == [CHEAP]
    assert await usable(max_price=9) == []


class Staked:
    """One node whose owner staked as much as another did for eight nodes."""

    def __init__(self) -> None:
        self.many = [address((1000 + n).to_bytes(20, "big")) for n in range(8)]

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return [announced(account, price=1, room=1) for account in (DEAR, *self.many)]

    def standing(self, account: Address) -> Standing:
        return Standing(stake=Nectar(800 if account == DEAR else 100))


async def test_the_node_measured_next_is_drawn_by_stake_however_many_an_owner_spreads_it_over() -> None:
    staked, draws = Staked(), 2_000
    peers = Peers(staked, ROOT, 4, rtt=lambda _account: None, standing=staked.standing, rng=random.Random(2))
    assert peers.by_lot() is None
    await peers.refresh()
    drawn = [peers.by_lot() for _ in range(draws)]
    one = sum(endpoint is not None and bytes(endpoint.account) == address_bytes(DEAR) for endpoint in drawn)
    assert one / draws == pytest.approx(0.5, abs=0.04)


async def test_a_node_left_alone_is_not_measured_either() -> None:
    peers = Peers(Listed(), ROOT, 4, rtt=lambda _account: None)
    await peers.refresh()
    peers.shun(CHEAP, PeerUnreachable("gone", peer=CHEAP))
    drawn = [peers.by_lot() for _ in range(20)]
    assert all(endpoint is not None and bytes(endpoint.account) == address_bytes(DEAR) for endpoint in drawn)


async def test_a_node_that_was_full_is_asked_again_soon() -> None:
    now = 0.0
    peers = Peers(Listed(), ROOT, 4, rtt=lambda _account: None, clock=lambda: now)
    peers.shun(CHEAP, OutOfCapacity("too many sessions", needed=1, free=0))
    peers.shun(DEAR, PeerUnreachable("gone", peer=DEAR))
    assert peers.shunned(CHEAP)
    now = FULL_SECONDS
    assert not peers.shunned(CHEAP)
    assert peers.shunned(DEAR)


async def test_a_node_nobody_measured_looks_no_nearer_than_one_that_is_far_away() -> None:
    """Or a machine far away would be tried once for each of its identities."""
    peers = Peers(Listed(), ROOT, 4, rtt=lambda account: 0.15 if account == DEAR else None)
    await peers.refresh()
    assert find_route(peers.candidates(tokens=1, wire_dtype="float32"), Span(0, 4))[0].account == DEAR


class Crowd:
    """One known node, and newcomers that ask less."""

    def __init__(self, newcomers: int) -> None:
        self.newcomers = [address((1000 + n).to_bytes(20, "big")) for n in range(newcomers)]

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        cheap = [announced(account, price=1, room=100) for account in self.newcomers]
        return [announced(DEAR, price=1000, room=100), *cheap]

    def standing(self, account: Address) -> Standing:
        return Standing(score=0.6 if account == DEAR else None)


@pytest.mark.parametrize("newcomers", [1, 50])
async def test_newcomers_get_their_share_of_the_sessions_however_many_they_are(newcomers: int) -> None:
    crowd, share, sessions = Crowd(newcomers), 0.25, 400
    peers = Peers(crowd, ROOT, 4, rtt=lambda _account: None, standing=crowd.standing, rng=random.Random(1))
    await peers.refresh()
    got = 0
    for _ in range(sessions):
        turn = peers.newcomers_turn(share)
        found = peers.candidates(tokens=1, wire_dtype="float32", newcomers=turn)
        got += find_route(found, Span(0, 4), preference=Preference(0.001))[0].account != DEAR
    assert got / sessions == pytest.approx(share, abs=0.07)


async def test_a_newcomer_counts_as_neutral_and_where_nobody_is_known_all_are_used() -> None:
    peers = Peers(Listed(), ROOT, 4, rtt=lambda _account: None)
    await peers.refresh()
    found = peers.candidates(tokens=1, wire_dtype="float32", newcomers=False)
    assert {c.score for c in found} == {NEUTRAL_SCORE}
    assert all(c.in_reserve for c in found)
    assert len(find_route(found, Span(0, 4))) == 1
    assert (peers.newcomers_turn(0.0), peers.newcomers_turn(1.0)) == (False, True)
