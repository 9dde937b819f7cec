"""Block choice: a node goes where the swarm lacks it most, and two runs with one seed agree."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.span import Span, uncovered
from corolla_node.block_choice import Served, choose_span, coverage

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
