"""Block choice: a node goes where the swarm lacks it most, and two runs with one seed agree."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.span import Span, uncovered
from corolla_node.block_choice import Served, choose_span, coverage, should_move, survey

TOTAL = 12
spans = st.tuples(st.integers(0, TOTAL - 1), st.integers(1, TOTAL)).map(lambda t: Span(t[0], min(TOTAL, t[0] + t[1])))
swarms = st.lists(st.builds(Served, spans, st.integers(0, 1000)), max_size=8)
lengths, seeds = st.integers(1, TOTAL), st.integers()


@given(swarm=swarms, length=lengths, seed=seeds)
def test_a_gap_is_covered_as_far_as_the_length_allows(swarm: list[Served], length: int, seed: int) -> None:
    gaps = set(uncovered(TOTAL, [served.span for served in swarm]))
    chosen = choose_span(TOTAL, length, swarm, rng=Random(seed))
    most = max(len(gaps & set(range(s, s + length))) for s in range(TOTAL - length + 1))
    assert len(gaps & set(chosen.blocks())) == most
    assert len(chosen) == length
    assert chosen in Span(0, TOTAL)


@given(swarm=swarms, length=lengths, seed=seeds)
def test_no_other_span_has_a_worse_served_worst_block(swarm: list[Served], length: int, seed: int) -> None:
    served = coverage(TOTAL, swarm)
    chosen = choose_span(TOTAL, length, swarm, rng=Random(seed))
    assert min(served[b] for b in chosen.blocks()) == min(served)


@given(swarm=swarms, length=lengths, seed=seeds)
def test_the_choice_is_the_seeds_alone(swarm: list[Served], length: int, seed: int) -> None:
    first = choose_span(TOTAL, length, swarm, rng=Random(seed))
    assert first == choose_span(TOTAL, length, list(reversed(swarm)), rng=Random(seed))


@given(length=lengths, seed=seeds)
def test_nodes_that_come_one_by_one_cover_the_model(length: int, seed: int) -> None:
    rng, swarm = Random(seed), []
    for _ in range(2 * (TOTAL // length + 1)):
        swarm.append(Served(choose_span(TOTAL, length, swarm, rng=rng), 10))
    assert uncovered(TOTAL, [served.span for served in swarm]) == []


@pytest.mark.parametrize("length", [0, TOTAL + 1])
def test_a_length_the_model_does_not_have_is_refused(length: int) -> None:
    with pytest.raises(InvalidInput):
        choose_span(TOTAL, length, [], rng=Random(0))


THRESHOLD = 0.2


def looks(swarm: list[Served], rng: Random, *, rounds: int) -> int:
    """Every node in turn looks at the swarm as it is then, and goes where it would; how many moves that made."""
    moves = 0
    for _ in range(rounds):
        for index, mine in enumerate(swarm):
            there = should_move(survey(TOTAL, swarm, threshold=THRESHOLD), mine, threshold=THRESHOLD, rng=rng)
            if there is not None:
                swarm[index] = Served(there, mine.throughput)
                moves += 1
    return moves


@given(swarm=st.lists(st.builds(Served, spans, st.integers(0, 1000)), min_size=1, max_size=12), seed=seeds)
def test_no_move_takes_a_blocks_last_server_or_makes_the_worst_block_worse(swarm: list[Served], seed: int) -> None:
    rng = Random(seed)
    for index, mine in enumerate(swarm):
        there = should_move(survey(TOTAL, swarm, threshold=THRESHOLD), mine, threshold=THRESHOLD, rng=rng)
        if there is None:
            continue
        after = [*swarm[:index], Served(there, mine.throughput), *swarm[index + 1 :]]
        assert len(there) == len(mine.span)
        assert there in Span(0, TOTAL)
        assert min(coverage(TOTAL, after)) >= min(coverage(TOTAL, swarm))
        gone = set(uncovered(TOTAL, [served.span for served in after]))
        assert gone <= set(uncovered(TOTAL, [served.span for served in swarm]))


@given(swarm=st.lists(st.builds(Served, spans, st.integers(1, 1000)), min_size=1, max_size=12), seed=seeds)
def test_moves_come_to_an_end(swarm: list[Served], seed: int) -> None:
    rng = Random(seed)
    looks(swarm, rng, rounds=60)
    assert looks(swarm, rng, rounds=20) == 0


@given(seed=seeds)
def test_an_unserved_block_is_soon_served_by_one_that_can_be_spared(seed: int) -> None:
    rng, swarm = Random(seed), [Served(Span(0, 6), 10)] * 3
    looks(swarm, rng, rounds=30)
    assert sorted(str(served.span) for served in swarm).count("6:12") in (1, 2)
    assert uncovered(TOTAL, [served.span for served in swarm]) == []


def test_of_many_that_could_move_about_as_many_do_as_are_lacking() -> None:
    """All look at the same moment, none knowing of the others."""
    swarm = [Served(Span(0, 6), 10)] * 600 + [Served(Span(6, 12), 10)] * 200
    outlook = survey(TOTAL, swarm, threshold=THRESHOLD)
    rng = Random(7)
    going = [should_move(outlook, served, threshold=THRESHOLD, rng=rng) for served in swarm]
    assert 140 <= sum(there is not None for there in going) <= 260
    assert going[600:] == [None] * 200


def test_who_would_gain_the_swarm_less_than_the_threshold_stays() -> None:
    for extra, moves in ((1, False), (4, True)):
        swarm = [Served(Span(0, 6), 10)] * (10 + extra) + [Served(Span(6, 12), 10)] * 10
        outlook = survey(TOTAL, swarm, threshold=THRESHOLD)
        rng = Random(1)
        going = [should_move(outlook, swarm[0], threshold=THRESHOLD, rng=rng) for _ in range(500)]
        assert any(there is not None for there in going) is moves
