"""When to speculate, and how far: decided on what steps took, and never at a loss that matters."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corolla.drafter import MAX_DRAFT, Hope
from corolla.pace import HEAD_START, SHARE, Pace

SURE = Hope(MAX_DRAFT, kind=4, prior=0.8)


def run(
    pace: Pace,
    tokens: int,
    *,
    seconds: Callable[[int], float],
    right: Callable[[int], bool],
    hope: Hope = SURE,
    noise: Callable[[], float] = lambda: 1.0,
) -> tuple[float, list[int]]:
    """The seconds that generating `tokens` takes where a step of n positions takes `seconds(n)`, and the lengths of the
    drafts; `right` says whether the n-th token is guessed right."""
    pace.prompt(100, seconds(100))
    made, spent, drafts = 1, 0.0, []
    while made < tokens:
        count = pace.choose(hope, most=tokens - made - 1)
        accepted = 0
        while accepted < count and right(made + accepted):
            accepted += 1
        took = seconds(1 + count) * noise()
        pace.step(hope, drafted=count, accepted=accepted, seconds=took)
        spent += took
        made += 1 + accepted
        drafts.append(count)
    return spent, drafts


def far(positions: int) -> float:
    """A chain 50 ms away whose compute takes 30 ms, and 4 ms for each position more."""
    return 0.076 + 0.004 * positions


def test_what_is_guessed_right_is_sent_many_at_a_time() -> None:
    spent, drafts = run(Pace(waste=0.5), 128, seconds=far, right=lambda n: True)
    assert max(drafts) == MAX_DRAFT
    assert 127 * far(1) / spent > 4


def test_nothing_is_guessed_before_a_plain_step_was_measured() -> None:
    pace = Pace(waste=0.5)
    assert pace.choose(SURE, most=15) == 0
    pace.prompt(100, 0.5)
    assert pace.choose(SURE, most=15) == 0
    pace.step(SURE, drafted=0, accepted=0, seconds=None)  # the reader was slower than the nodes
    assert pace.choose(SURE, most=15) == 0
    pace.step(SURE, drafted=0, accepted=0, seconds=0.08)
    assert pace.choose(SURE, most=15) > 0


def test_no_more_is_drafted_than_the_drafter_offers_and_the_caller_allows() -> None:
    pace = Pace(waste=10)
    for _ in range(20):
        pace.step(SURE, drafted=1, accepted=1, seconds=0.08)
        pace.step(SURE, drafted=0, accepted=0, seconds=0.08)
    assert pace.choose(SURE, most=3) == 3
    assert pace.choose(Hope(2, kind=4, prior=0.8), most=9) == 2
    assert pace.choose(SURE, most=0) == 0


def test_wrong_guesses_of_one_kind_do_not_spoil_another() -> None:
    pace, poor = Pace(waste=100), Hope(MAX_DRAFT, kind=1, prior=0.5)
    pace.prompt(100, 0.4)
    for _ in range(40):
        pace.step(poor, drafted=0, accepted=0, seconds=far(1))
        pace.step(SURE, drafted=4, accepted=4, seconds=far(5))
    for _ in range(16):
        pace.step(poor, drafted=1, accepted=0, seconds=far(2))
    assert pace.choose(poor, most=15) == 0
    assert pace.choose(SURE, most=15) > 8


def test_what_never_paid_is_tried_again_now_and_then() -> None:
    half = 2000
    _, drafts = run(Pace(waste=0.5), 2 * half, seconds=far, right=lambda n: n >= half)
    steps = len(drafts)
    assert steps < half + half / 4  # it noticed that things had changed


def test_where_positions_cost_as_much_as_steps_nothing_is_guessed_for_long() -> None:
    spent, drafts = run(Pace(waste=9.0), 256, seconds=lambda n: 0.03 * n, right=lambda n: True)
    assert sum(drafts) <= 8
    assert spent <= 1.01 * 255 * 0.03


@pytest.mark.parametrize("waste", [0.0, 0.1, 0.5, 3.0])
def test_waste_stays_below_its_bound(waste: float) -> None:
    pace, lottery = Pace(waste=waste), random.Random(5)
    pace.prompt(100, 0.4)
    wasted, generated = 0, 1
    for _ in range(600):
        count = pace.choose(SURE, most=15)
        accepted = lottery.randint(0, count)
        wasted, generated = wasted + count - accepted, generated + 1 + accepted
        assert wasted <= waste * (generated + 16)
        pace.step(SURE, drafted=count, accepted=accepted, seconds=far(1 + count))
    assert (wasted > 0) == (waste > 0)


def test_one_hiccup_does_not_end_speculation_for_good() -> None:
    pace = Pace(waste=0.5)
    run(pace, 40, seconds=far, right=lambda n: True)
    pace.step(SURE, drafted=8, accepted=8, seconds=5.0)
    for _ in range(120):
        pace.step(SURE, drafted=0, accepted=0, seconds=far(1))
    assert pace.choose(SURE, most=15) > 0


@settings(max_examples=300, deadline=None)
@given(
    tokens=st.integers(2, 400),
    fixed=st.floats(0.0, 0.2),
    each=st.floats(0.0001, 0.05),
    luck=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    prior=st.floats(0, 1),
    turns=st.integers(1, 100),
)
def test_speculation_never_takes_longer_than_its_allowance(
    tokens: int, fixed: float, each: float, luck: float, seed: int, prior: float, turns: int
) -> None:
    """Whatever is right, and however that changes: where a position more costs what the prompt's cost at most."""
    lottery = random.Random(seed)
    coins = [lottery.random() < luck for _ in range(tokens + turns)]
    spent, _ = run(
        Pace(waste=100),
        tokens,
        seconds=lambda n: fixed + each * n,
        right=lambda n: coins[n] if n // turns % 2 else not coins[n],
        hope=Hope(MAX_DRAFT, 0, prior),
    )
    plain = (tokens - 1) * (fixed + each)
    assert spent <= (1 + SHARE) * plain + HEAD_START * (fixed + each) + 1e-9


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), cliff=st.integers(2, 16), height=st.floats(1, 5))
def test_steps_that_turn_out_dear_are_noticed(seed: int, cliff: int, height: float) -> None:
    """A batch size from which on everything is slow costs one surprise, not one after another."""
    lottery = random.Random(seed)

    def seconds(positions: int) -> float:
        return far(positions) * (height if positions >= cliff and positions < 100 else 1.0)

    spent, _ = run(Pace(waste=100), 300, seconds=seconds, right=lambda n: lottery.random() < 0.3)
    plain = 299 * seconds(1)
    assert spent <= (1 + SHARE) * plain + HEAD_START * far(1) + height * far(16)


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_a_tenth_costs_no_more_than_three_percent(seed: int) -> None:
    lottery = random.Random(seed)
    spent, _ = run(
        Pace(waste=0.5),
        400,
        seconds=far,
        right=lambda n: lottery.random() < 0.1,
        noise=lambda: lottery.uniform(0.9, 1.1),
    )
    assert spent <= 1.03 * 399 * far(1)
