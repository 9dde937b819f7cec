"""Reputation rises with what passes, falls with what fails, forgets, and cannot be multiplied by splitting."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from corolla_core.protocol.beta import beta_cdf, beta_quantile
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.reputation import (
    SCORE_ONE,
    AuditedEvent,
    History,
    ReputationTerms,
    aged,
    capped_stake,
    chain_score,
    on_probation,
    record,
    score,
    weight,
)
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime

TERMS = ReputationTerms(half_life=1_000)
ALMOST = 1e-8

parameters = st.floats(0.05, 1e5)
evidence = st.floats(0, 3e4)
histories = st.builds(History, evidence, evidence)
events = st.builds(
    AuditedEvent,
    at=st.integers(0, 5_000).map(UnixTime),
    passed=st.booleans(),
    fees=st.integers(10**15, 10**18).map(Nectar),
    burned=st.integers(0, 10**15).map(Nectar),
)


@settings(max_examples=150, deadline=None)
@given(parameters, parameters, st.floats(0.001, 0.999))
def test_the_quantile_is_scipys(a: float, b: float, probability: float) -> None:
    assert beta_quantile(a, b, probability) == pytest.approx(stats.beta.ppf(probability, a, b), abs=ALMOST)


@settings(max_examples=150, deadline=None)
@given(parameters, parameters, st.floats(0, 1))
def test_the_distribution_function_is_scipys(a: float, b: float, x: float) -> None:
    assert beta_cdf(a, b, x) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-9)


@pytest.mark.parametrize(("a", "b", "probability"), [(0, 1, 0.5), (1, 2e6, 0.5), (1, 1, 0.0), (float("nan"), 1, 0.5)])
def test_what_is_no_beta_distribution_is_refused(a: float, b: float, probability: float) -> None:
    with pytest.raises(InvalidInput):
        beta_quantile(a, b, probability)


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(10**16, 10**20))
def test_a_success_never_lowers_and_a_failure_never_raises_the_score(history: History, fees: int) -> None:
    now = score(history, TERMS)
    passed = record(history, AuditedEvent(UnixTime(0), True, Nectar(fees), Nectar(0)), TERMS)
    failed = record(history, AuditedEvent(UnixTime(0), False, Nectar(fees), Nectar(0)), TERMS)
    assert score(failed, TERMS) - ALMOST <= now <= score(passed, TERMS) + ALMOST


def test_early_successes_and_failures_move_the_score_visibly() -> None:
    three = [score(History(passed, 5.0), TERMS) for passed in (1.0, 5.0, 50.0)]
    assert all(later > before + 0.05 for before, later in pairwise(three))
    assert score(History(50.0, 5.0), TERMS) > score(History(50.0, 10.0), TERMS) + 0.05


@settings(max_examples=60, deadline=None)
@given(histories, st.integers(0, 10_000), st.integers(0, 10_000))
def test_forgetting_loses_half_a_half_life_and_returns_to_the_prior(history: History, first: int, then: int) -> None:
    stepwise = aged(aged(history, UnixTime(first), TERMS), UnixTime(first + then), TERMS)
    assert stepwise.passed == pytest.approx(aged(history, UnixTime(first + then), TERMS).passed)
    assert aged(history, UnixTime(TERMS.half_life), TERMS).failed == pytest.approx(history.failed / 2)
    forgotten = aged(history, UnixTime(200 * TERMS.half_life), TERMS)
    assert score(forgotten, TERMS) == pytest.approx(score(History(), TERMS), abs=ALMOST)
    assert on_probation(forgotten, TERMS)


@settings(max_examples=100, deadline=None)
@given(st.lists(events, max_size=6), st.randoms(use_true_random=False))
def test_the_order_in_which_events_become_known_does_not_matter(found: list[AuditedEvent], rng: object) -> None:
    shuffled = list(found)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = History(), History()
    for event, another in zip(found, shuffled, strict=True):
        one, other = record(one, event, TERMS), record(other, another, TERMS)
    assert (one.passed, one.failed, one.at) == (pytest.approx(other.passed), pytest.approx(other.failed), other.at)


terms = st.builds(
    ReputationTerms, prior_alpha=st.floats(1, 100), prior_beta=st.floats(1, 100), risk=st.floats(0.01, 0.2)
)
shares = st.lists(st.integers(0, 1_000), min_size=2, max_size=6).filter(any)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 2_000), st.floats(0, 1), shares, terms, st.data())
def test_splitting_into_sybils_never_raises_the_total_weight(
    work: float, rate: float, work_shares: list[int], terms: ReputationTerms, data: st.DataObject
) -> None:
    """The Sybils share the work and the stake as they like, and pass as often as the one would."""
    stake_shares = data.draw(st.lists(st.integers(0, 1_000), min_size=len(work_shares), max_size=len(work_shares)))
    stake = data.draw(st.integers(0, 10**6)) * ONE_NECTAR
    whole = weight(History(work * rate, work * (1 - rate)), Nectar(stake), terms)
    split = 0.0
    for done, held in zip(work_shares, stake_shares, strict=True):
        part = work * done / sum(work_shares)
        its_stake = Nectar(stake * held // (sum(stake_shares) or 1))
        split += weight(History(part * rate, part * (1 - rate)), its_stake, terms)
    assert split <= whole + ALMOST * stake + 1


def test_one_good_node_outweighs_the_sybils_it_could_be() -> None:
    whole = weight(History(100.0, 1.0), Nectar(1_000 * ONE_NECTAR), TERMS)
    part = weight(History(10.0, 0.1), Nectar(100 * ONE_NECTAR), TERMS)
    assert 0 < 10 * part < 0.95 * whole


def test_stake_counts_only_as_far_as_work_backs_it() -> None:
    whale = Nectar(10**6 * ONE_NECTAR)
    assert weight(History(), whale, TERMS) == 0
    assert capped_stake(History(5.0, 0.0), whale, TERMS) == 5 * TERMS.stake_per_evidence
    assert capped_stake(History(5.0, 0.0), Nectar(7), TERMS) == 7


def test_fees_that_were_burned_buy_no_reputation() -> None:
    event = AuditedEvent(UnixTime(0), True, Nectar(ONE_NECTAR), Nectar(ONE_NECTAR))
    assert record(History(), event, TERMS) == History()
    with pytest.raises(InvalidInput):
        AuditedEvent(UnixTime(0), True, Nectar(1), Nectar(2))


def test_a_node_is_a_newcomer_until_it_has_evidence_and_again_when_that_is_old() -> None:
    assert on_probation(History(), TERMS)
    known = History(TERMS.probation, 0.0)
    assert not on_probation(known, TERMS)
    assert on_probation(aged(known, UnixTime(TERMS.half_life), TERMS), TERMS)


def test_scores_on_chain_stay_in_their_range() -> None:
    assert 0 < chain_score(History(), TERMS) < SCORE_ONE // 10
    assert SCORE_ONE * 0.99 < chain_score(History(1e9, 0.0), TERMS) < SCORE_ONE
    assert chain_score(History(0.0, 1e9), TERMS) == 0


@pytest.mark.parametrize(
    "wrong", [{"half_life": 0}, {"evidence_unit": 0}, {"risk": 0.3}, {"newcomer_share": 1.1}, {"prior_beta": 0.0}]
)
def test_terms_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        ReputationTerms(**wrong)  # type: ignore[arg-type]
