"""Routes cover exactly what was asked, never use a shunned node, and nothing cheaper exists."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corolla.chains import ChainSearch, Rider, undominated
from corolla.router import Candidate, Leg, Preference, find_route, find_spares, hop_cost
from corolla_core.protocol.errors import NoRoute
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.span import Span

TOTAL = 6
ACCOUNTS = [address("0x" + f"{i:02x}" * 20) for i in range(1, 8)]


@st.composite
def swarms(draw: st.DrawFn, most: int = 5) -> list[Candidate]:
    count = draw(st.integers(0, most))
    found = []
    for account in ACCOUNTS[:count]:
        start = draw(st.integers(0, TOTAL - 1))
        found.append(
            Candidate(
                account=account,
                span=Span(start, draw(st.integers(start + 1, TOTAL))),
                price=Price(draw(st.integers(0, 50))),
                seconds_per_block=draw(st.integers(1, 40)) / 1000,
                rtt=draw(st.integers(0, 60)) / 1000,
            )
        )
    return found


preferences = st.integers(0, 10).map(lambda n: Preference(n / 10_000))


def cost(route: Sequence[Leg], swarm: Sequence[Candidate], preference: Preference) -> float:
    known = {c.account: c for c in swarm}
    return sum(hop_cost(known[leg.account], leg.span, preference) for leg in route)


def every_route(swarm: Sequence[Candidate], want: Span) -> Iterator[tuple[Leg, ...]]:
    for count in range(1, len(want) + 1):
        for inner in itertools.combinations(range(want.start + 1, want.end), count - 1):
            stops = [want.start, *inner, want.end]
            spans = [Span(a, b) for a, b in itertools.pairwise(stops)]
            for nodes in itertools.permutations(swarm, count):
                if all(span in node.span for node, span in zip(nodes, spans, strict=True)):
                    yield tuple(Leg(n.account, s, n.price) for n, s in zip(nodes, spans, strict=True))


@settings(max_examples=150, deadline=None)
@given(swarms(), preferences)
def test_a_route_joins_up_and_none_is_cheaper(swarm: list[Candidate], preference: Preference) -> None:
    want = Span(0, TOTAL)
    best = min((cost(route, swarm, preference) for route in every_route(swarm, want)), default=None)
    if best is None:
        with pytest.raises(NoRoute):
            find_route(swarm, want, preference=preference)
        return
    route = find_route(swarm, want, preference=preference)
    assert [leg.span.start for leg in route] == [0, *(leg.span.end for leg in route[:-1])]
    assert route[-1].span.end == TOTAL
    assert len({leg.account for leg in route}) == len(route)
    known = {c.account: c for c in swarm}
    assert all(leg.span in known[leg.account].span for leg in route)
    assert cost(route, swarm, preference) == pytest.approx(best)


@settings(max_examples=100, deadline=None)
@given(swarms(), st.sets(st.sampled_from(ACCOUNTS)), st.integers(0, TOTAL - 1), st.data())
def test_shunned_nodes_are_never_used_and_any_part_can_be_asked_for(
    swarm: list[Candidate], avoid: set[Address], start: int, data: st.DataObject
) -> None:
    want = Span(start, data.draw(st.integers(start + 1, TOTAL)))
    served = {b for c in swarm if c.account not in avoid for b in c.span.blocks()}
    missing = [b for b in want.blocks() if b not in served]
    if missing:
        with pytest.raises(NoRoute) as caught:
            find_route(swarm, want, avoid=avoid)
        assert caught.value.missing == missing
        return
    route = find_route(swarm, want, avoid=avoid)
    assert not avoid & {leg.account for leg in route}
    assert (route[0].span.start, route[-1].span.end) == (want.start, want.end)


@settings(max_examples=60, deadline=None)
@given(swarms(), st.randoms(use_true_random=False))
def test_the_order_of_announcements_does_not_matter(swarm: list[Candidate], rng: object) -> None:
    shuffled = list(swarm)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    try:
        route = find_route(swarm, Span(0, TOTAL))
    except NoRoute:
        return
    assert find_route(shuffled, Span(0, TOTAL)) == route


@settings(max_examples=60, deadline=None)
@given(swarms(most=7))
def test_spares_cover_each_leg_and_share_no_node(swarm: list[Candidate]) -> None:
    try:
        route = find_route(swarm, Span(0, TOTAL))
    except NoRoute:
        return
    busy = {leg.account for leg in route}
    for leg, chains in zip(route, find_spares(swarm, route), strict=True):
        accounts = [spare.account for chain in chains for spare in chain]
        assert len(set(accounts)) == len(accounts)
        assert not busy & set(accounts)
        for chain in chains:
            assert (chain[0].span.start, chain[-1].span.end) == (leg.span.start, leg.span.end)


def test_a_price_twice_the_median_weighs_as_its_importance_says() -> None:
    common = {"span": Span(0, 4), "seconds_per_block": 0.010}
    cheap = Candidate(account=ACCOUNTS[0], price=Price(100), **common)  # type: ignore[arg-type]
    dear = Candidate(account=ACCOUNTS[1], price=Price(200), **common)  # type: ignore[arg-type]
    preference = Preference.balanced([cheap, cheap, dear], 0.5)
    difference = hop_cost(dear, Span(0, 4), preference) - hop_cost(cheap, Span(0, 4), preference)
    assert difference == pytest.approx(0.5 * 4 * 0.010)


def test_hundreds_of_overlapping_nodes_are_routed_quickly() -> None:
    swarm = [
        Candidate(
            account=address("0x" + f"{i:040x}"),
            span=Span(i % 70, min(80, i % 70 + 5 + i % 11)),
            price=Price(10 + i % 7),
            seconds_per_block=0.001 * (1 + i % 13),
            rtt=0.001 * (i % 50),
        )
        for i in range(1, 301)
    ]
    route = find_route(swarm, Span(0, 80))
    assert sum(len(leg.span) for leg in route) == 80


def random_swarm(seed: int, *, nodes: int, blocks: int) -> list[Candidate]:
    rng = random.Random(seed)
    swarm = []
    for i in range(nodes):
        length = rng.randint(blocks // 10, blocks // 2)
        # The first two reach both ends, so that every block is served.
        start = (0, blocks - length)[i] if i < 2 else rng.randint(0, blocks - length)
        swarm.append(
            Candidate(
                account=address(i.to_bytes(20, "big")),
                span=Span(start, start + length),
                price=Price(rng.randint(1, 20)),
                seconds_per_block=0.01 * rng.uniform(0.5, 2),
                rtt=rng.uniform(0.001, 0.05),
            )
        )
    return swarm


def rider(number: int, start: int, end: int, *, entry: float, per_block: float) -> Rider:
    return Rider(address(number.to_bytes(20, "big")), Span(start, end), entry, per_block)


@pytest.mark.parametrize("seed", range(8))
def test_two_hundred_nodes_over_126_blocks_take_bounded_work(seed: int) -> None:
    swarm = random_swarm(seed, nodes=200, blocks=126)
    riders = [Rider(c.account, c.span, 0.001 + c.rtt / 2, c.seconds_per_block) for c in swarm]
    search = ChainSearch(riders, Span(0, 126))
    chain = search.best()
    assert [b for piece in chain for b in piece.span.blocks()] == list(range(126))
    assert search.steps < 30_000


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 40, 400]))
def test_a_search_given_up_still_finds_a_chain_without_repeats(seed: int, effort: int) -> None:
    rng = random.Random(seed)
    riders = [rider(99, 0, 20, entry=0.0, per_block=1.0)]
    for number in range(rng.randint(0, 12)):
        start = rng.randint(0, 18)
        riders.append(rider(number, start, rng.randint(start + 1, 20), entry=0.1, per_block=rng.uniform(0.1, 1.2)))
    riders.sort(key=lambda r: r.account)
    search = ChainSearch(riders, Span(0, 20), effort=effort)
    chain = search.best()
    spans = {r.account: r.span for r in riders}
    assert [b for piece in chain for b in piece.span.blocks()] == list(range(20))
    assert len({piece.account for piece in chain}) == len(chain)
    assert all(piece.span in spans[piece.account] for piece in chain)


def test_a_node_both_sides_of_a_bargain_is_used_on_one_side_only() -> None:
    wide, bargain = rider(1, 0, 10, entry=0.0, per_block=1.0), rider(2, 4, 6, entry=0.0, per_block=0.1)
    after = rider(3, 6, 10, entry=0.0, per_block=1.2)
    chain = ChainSearch([wide, bargain, after], Span(0, 10)).best()
    assert [(piece.account, piece.span) for piece in chain] == [
        (wide.account, Span(0, 4)),
        (bargain.account, Span(4, 6)),
        (after.account, Span(6, 10)),
    ]


def cheapest_with_repeats(riders: Sequence[Rider], blocks: int) -> float:
    """By every handover at every block: no cleverness."""
    cost = [0.0] + [float("inf")] * blocks
    for stop in range(1, blocks + 1):
        for r in riders:
            for start in range(r.span.start, min(stop, r.span.end)):
                if stop <= r.span.end:
                    cost[stop] = min(cost[stop], cost[start] + r.entry + r.per_block * (stop - start))
    return cost[blocks]


crowds = st.lists(
    st.tuples(st.integers(0, 11), st.integers(1, 12), st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=40
)


@settings(max_examples=200, deadline=None)
@given(crowds)
def test_leaving_out_who_is_dominated_makes_no_chain_dearer(crowd: list[tuple[int, int, int, int]]) -> None:
    riders = [rider(999, 0, 12, entry=7.0, per_block=7.0)]
    for number, (start, length, entry, per_block) in enumerate(crowd):
        riders.append(rider(number, start, min(12, start + length), entry=entry / 10, per_block=per_block / 10))
    kept = undominated(riders, Span(0, 12))
    assert cheapest_with_repeats(kept, 12) == pytest.approx(cheapest_with_repeats(riders, 12))
    for r in kept:
        others = [o for o in kept if o is not r and r.span in o.span]
        assert not any(o.entry <= r.entry and o.per_block < r.per_block for o in others)


@pytest.mark.parametrize("seed", range(3))
def test_ten_thousand_nodes_are_routed_in_work_that_hardly_grows_with_them(seed: int) -> None:
    swarm = random_swarm(seed, nodes=10_000, blocks=126)
    riders = [Rider(c.account, c.span, 0.001 + c.rtt / 2, c.seconds_per_block) for c in swarm]
    search = ChainSearch(riders, Span(0, 126))
    chain = search.best()
    assert [b for piece in chain for b in piece.span.blocks()] == list(range(126))
    assert len({piece.account for piece in chain}) == len(chain)
    assert search.steps < 50_000
