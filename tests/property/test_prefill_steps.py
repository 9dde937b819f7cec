"""Prompts are cut so that the chain is busy, and nothing is lost by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla.prefill import LEAST, PASS_ROWS, prefill_steps


def seconds(steps: list[int], hops: int) -> float:
    """When the last node has done the last step, in rows' time: each node takes the steps in order as they come."""
    ready = [0.0] * len(steps)
    for _hop in range(hops):
        free = 0.0
        for number, size in enumerate(steps):
            free = max(free, ready[number]) + size + PASS_ROWS
            ready[number] = free
    return ready[-1]


@given(st.data(), st.integers(1, 5000), st.integers(1, 40), st.integers(1, 512))
def test_every_position_is_sent_once_in_steps_nodes_take(
    data: st.DataObject, tokens: int, hops: int, most: int
) -> None:
    keep = data.draw(st.integers(1, min(tokens, most)))
    steps = prefill_steps(tokens, hops=hops, most=most, keep=keep)
    assert sum(steps) == tokens
    assert all(0 < size <= most for size in steps)
    assert steps[-1] >= keep


@given(st.integers(1, LEAST), st.integers(1, 40))
def test_a_few_positions_are_one_step(tokens: int, hops: int) -> None:
    assert prefill_steps(tokens, hops=hops, most=128) == [tokens]


@given(st.integers(1, 128), st.integers(1, 40))
def test_positions_that_are_all_wanted_back_are_one_step(tokens: int, hops: int) -> None:
    assert prefill_steps(tokens, hops=hops, most=128, keep=tokens) == [tokens]


def test_one_node_gets_the_largest_steps() -> None:
    assert prefill_steps(512, hops=1, most=128) == [128] * 4


@given(st.integers(1, 4096), st.integers(1, 20))
def test_it_takes_no_longer_than_steps_of_the_largest_size(tokens: int, hops: int) -> None:
    largest = [128] * (tokens // 128) + ([tokens % 128] if tokens % 128 else [])
    assert seconds(prefill_steps(tokens, hops=hops, most=128), hops) <= 1.1 * seconds(largest, hops)


@pytest.mark.parametrize(("tokens", "hops", "gain"), [(512, 2, 1.04), (512, 4, 1.2), (1024, 8, 1.3), (2048, 8, 1.1)])
def test_the_more_nodes_the_more_is_gained(tokens: int, hops: int, gain: float) -> None:
    cut = prefill_steps(tokens, hops=hops, most=128)
    assert seconds([128] * (tokens // 128), hops) > gain * seconds(cut, hops)
