"""What shares a pass, who goes first, and that nobody waits for ever."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from corolla_node.passes import (
    MAX_DECODE_ROWS,
    MAX_PREFILL_ROWS,
    PASSES_PER_PREFILL,
    PATIENCE,
    choose,
    leave_behind,
)


@dataclass
class Step:
    name: str
    blocks: object = "span"
    rows: int = 1
    price: int = 1
    left_behind: int = field(default=0)


def test_all_that_is_ready_goes_together() -> None:
    ready = [Step(str(number)) for number in range(MAX_DECODE_ROWS)]
    assert choose(ready, [], overtaken=0) == (ready, [])
    assert choose([], [], overtaken=0) == ([], [])


def test_prefill_waits_its_turn_and_then_takes_the_decode_steps_along() -> None:
    decode, prefill = [Step("a"), Step("b")], [Step("prompt", rows=100)]
    assert choose(decode, prefill, overtaken=PASSES_PER_PREFILL - 1) == (decode, [])
    assert choose(decode, prefill, overtaken=PASSES_PER_PREFILL) == (decode, prefill)
    assert choose([], prefill, overtaken=0) == ([], prefill)


def test_prefill_has_a_budget_and_what_is_larger_goes_alone() -> None:
    first, second, small = Step("first", rows=100), Step("second", rows=100), Step("small", rows=28)
    assert choose([], [first, second, small], overtaken=0) == ([], [first, small])
    beams = Step("beams", rows=MAX_PREFILL_ROWS * 4)
    assert choose([], [beams, small], overtaken=0) == ([], [beams])


def test_who_pays_more_goes_first_when_not_all_fit() -> None:
    ready = [Step(str(number), price=number % 2) for number in range(2 * MAX_DECODE_ROWS)]
    decoding, _ = choose(ready, [], overtaken=0)
    assert {each.price for each in decoding} == {1}
    assert [int(each.name) for each in decoding] == sorted(int(each.name) for each in decoding)


def test_a_pass_is_through_one_span() -> None:
    a, b, c = Step("a", blocks="one"), Step("b", blocks="two"), Step("c", blocks="one")
    assert choose([a, b, c], [], overtaken=0) == ([a, c], [])
    prompt = Step("prompt", blocks="two", rows=9)
    assert choose([a, b, c], [prompt], overtaken=PASSES_PER_PREFILL) == ([b], [prompt])


@given(
    rivals=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["one", "two"])), min_size=1, max_size=150),
    rows=st.integers(1, MAX_DECODE_ROWS),
)
def test_a_step_that_pays_least_is_left_behind_for_a_bounded_time(rivals: list[tuple[int, str]], rows: int) -> None:
    """Its rivals come again as soon as they have been served, and always pay more."""
    poor = Step("poor", blocks="one", rows=rows, price=0)
    waiting = [poor, *(Step(f"rich {n}", blocks=blocks, price=price) for n, (price, blocks) in enumerate(rivals))]
    # overdue steps go in order of arrival: all rivals may be overdue before it, one pass each span and full pass
    for _turn in range(PATIENCE + 2 * (1 + len(waiting) // MAX_DECODE_ROWS) + 1):
        decoding, _ = choose(waiting, [], overtaken=0)
        if poor in decoding:
            return
        assert decoding
        waiting = [each for each in waiting if each not in decoding]
        leave_behind(waiting)
        waiting += [Step(each.name, each.blocks, each.rows, each.price) for each in decoding]
    raise AssertionError("it starved")
