"""A good name is never held against a node, a bad one keeps it out, and many identities gain an owner nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corolla.router import NEARLY_EQUAL, Candidate, Leg, Preference, find_route, find_spares, hop_cost
from corolla.standing import BAD_SCORE, NEUTRAL_SCORE, REDO, risk_factor
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.span import Span

TOTAL = 8
WANT = Span(0, TOTAL)
MALLORY, ALICE, BOB = (address(bytes([n]) * 20) for n in (0xAA, 0xBB, 0xCC))
seeds = st.integers(0, 2**32)


def node(number: int, span: Span = WANT, *, slow: float = 0.01, **changes: object) -> Candidate:
    return Candidate(
        account=address(number.to_bytes(20, "big")),
        span=span,
        price=Price(1),
        seconds_per_block=slow,
        **changes,  # type: ignore[arg-type]
    )


def random_swarm(rng: random.Random, *, most: int = 6) -> list[Candidate]:
    """Nodes of any score; no two routes cost the same."""
    swarm = [node(1, slow=rng.uniform(0.01, 0.03), score=rng.random())]
    for number in range(2, rng.randint(2, most) + 1):
        start = rng.randrange(TOTAL)
        swarm.append(
            node(
                number * 16,
                Span(start, rng.randint(start + 1, TOTAL)),
                slow=rng.uniform(0.005, 0.03),
                rtt=rng.uniform(0, 0.02),
                score=rng.choice([rng.random(), NEUTRAL_SCORE]),
                in_reserve=rng.random() < 0.3,
            )
        )
    return swarm


def served(route: Sequence[Leg], accounts: set[Address]) -> int:
    """How many blocks of a route these accounts serve."""
    return sum(len(leg.span) for leg in route if leg.account in accounts)


def cost(route: Sequence[Leg], swarm: Sequence[Candidate]) -> float:
    known = {c.account: c for c in swarm}
    return sum(hop_cost(known[leg.account], leg.span, Preference()) for leg in route)


@settings(max_examples=300, deadline=None)
@given(seeds)
def test_a_better_score_never_makes_a_node_less_likely(seed: int) -> None:
    rng = random.Random(seed)
    swarm = random_swarm(rng)
    lucky = rng.choice(swarm)
    better = [replace(c, score=rng.uniform(c.score, 1.0)) if c is lucky else c for c in swarm]
    if served(find_route(swarm, WANT), {lucky.account}):
        assert served(find_route(better, WANT), {lucky.account})


def test_a_better_score_wins_a_route_from_an_equal() -> None:
    first, second = node(1, score=0.8), node(2, score=0.9)
    assert [leg.account for leg in find_route([first, second], WANT)] == [second.account]


def test_the_worst_name_counts_like_being_twice_as_slow_and_no_more() -> None:
    assert risk_factor(1.0) == 1.0
    assert risk_factor(0.0) == 1.0 + REDO
    fine = hop_cost(node(1), WANT, Preference())
    assert hop_cost(node(1, score=BAD_SCORE), WANT, Preference()) < (1.0 + REDO) * fine
    # Worse scores than can be told the client about change nothing.
    assert (risk_factor(-7.0), risk_factor(7.0)) == (1.0 + REDO, 1.0)


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_a_bad_node_serves_only_what_nobody_else_does(seed: int) -> None:
    swarm = random_swarm(random.Random(seed))
    good = [c for c in swarm if not c.bad]
    bad = {c.account for c in swarm if c.bad}
    missing = [b for b in WANT.blocks() if not any(b in c.span for c in good)]
    route = find_route(swarm, WANT)
    if not missing:
        assert served(route, bad) == 0
    else:
        assert all(any(b in leg.span for leg in route if leg.account in bad) for b in missing)


def test_a_bad_node_fills_the_hole_it_alone_can_fill_and_no_more() -> None:
    bad = node(1, slow=0.0001, score=0.0)
    left, right = node(2, Span(0, 3), slow=1.0), node(3, Span(5, TOTAL), slow=1.0)
    route = find_route([bad, left, right], WANT)
    assert [leg.span for leg in route if leg.account == bad.account] == [Span(3, 5)]


def test_a_newcomer_in_reserve_is_used_before_a_bad_node_and_after_all_others() -> None:
    bad, newcomer, slow = node(1, score=0.0), node(2, score=NEUTRAL_SCORE, in_reserve=True), node(3, slow=5.0)
    assert find_route([bad, newcomer, slow], WANT)[0].account == slow.account
    assert find_route([bad, newcomer], WANT)[0].account == newcomer.account
    assert find_route([bad], WANT)[0].account == bad.account


@settings(max_examples=300, deadline=None)
@given(seeds, st.integers(2, 5))
def test_sybils_behind_one_owner_gain_no_more_traffic_than_one_node(seed: int, count: int) -> None:
    rng = random.Random(seed)
    swarm = random_swarm(rng)
    for number in range(0x800, 0x800 + rng.randint(1, 4)):  # bargains in the midst of what the owner serves
        start = rng.randrange(1, TOTAL - 1)
        swarm.append(node(number, Span(start, rng.randint(start + 1, TOTAL)), slow=rng.uniform(0.001, 0.01)))
    wide = Span(rng.randrange(2), TOTAL - rng.randrange(2))
    one = node(0x1000, wide, slow=rng.uniform(0.005, 0.012), score=0.9, owner=MALLORY)
    sybils = [replace(one, account=address((0x1000 + n).to_bytes(20, "big"))) for n in range(count)]
    alone = find_route([*swarm, one], WANT)
    many = find_route([*swarm, *sybils], WANT)
    assert served(many, {s.account for s in sybils}) <= served(alone, {one.account})


def test_two_nodes_of_an_owner_do_not_stand_on_both_sides_of_a_bargain() -> None:
    wide = [node(n, slow=0.010, owner=MALLORY) for n in (1, 2)]
    bargain, after = node(3, Span(3, 5), slow=0.001), node(4, Span(5, TOTAL), slow=0.012)
    route = find_route([*wide, bargain, after], WANT)
    assert served(route, {c.account for c in wide}) == 3
    # Without anybody else for the end, one of them does it all: nobody is left without service.
    assert served(find_route([*wide, bargain], WANT), {c.account for c in wide}) >= TOTAL - 2


def test_an_owner_may_serve_different_blocks_with_different_nodes() -> None:
    left, right = node(1, Span(0, 4), owner=ALICE), node(2, Span(4, TOTAL), owner=ALICE)
    far = node(3, Span(4, TOTAL), slow=0.02, owner=BOB)
    assert {leg.account for leg in find_route([left, right, far], WANT)} == {left.account, right.account}


def test_of_routes_nearly_as_cheap_the_one_with_more_owners_is_taken() -> None:
    left, right = node(1, Span(0, 4), owner=ALICE), node(2, Span(4, TOTAL), owner=ALICE)
    near = node(3, Span(4, TOTAL), slow=0.0105, owner=BOB)
    route = find_route([left, right, near], WANT)
    assert near.account in {leg.account for leg in route}
    assert cost(route, [left, right, near]) <= NEARLY_EQUAL * cost(find_route([left, right], WANT), [left, right])


def test_overlapping_nodes_of_one_owner_serve_together_where_nobody_else_does() -> None:
    left, right = node(1, Span(0, 5), owner=ALICE), node(2, Span(3, TOTAL), owner=ALICE)
    assert len(find_route([left, right], WANT)) == 2


def test_spares_are_another_owners_where_there_is_one() -> None:
    leg = node(1, owner=ALICE)
    kin, other = node(2, owner=ALICE, slow=0.011), node(3, owner=BOB, slow=0.015)
    spares = find_spares([leg, kin, other], find_route([leg, kin, other], WANT))
    assert [[spare.account for spare in chain] for chain in spares[0]] == [[other.account], [kin.account]]


@pytest.mark.parametrize("clones", [2, 12])
def test_many_owners_of_many_nodes_are_routed_quickly(clones: int) -> None:
    rng = random.Random(clones)
    swarm = []
    for number in range(240):
        owner = address((10_000 + number // clones).to_bytes(20, "big"))
        start = 0 if number == 0 else rng.randrange(60)
        span = Span(start, 80 if number == 0 else start + rng.randint(5, 20))
        swarm.append(node(number + 1, span, slow=rng.uniform(0.01, 0.02), score=rng.random(), owner=owner))
    route = find_route(swarm, Span(0, 80))
    assert [b for leg in route for b in leg.span.blocks()] == list(range(80))
