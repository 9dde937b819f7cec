"""Whatever the figures: what is solved for suffices, one unit less does not, and more of a good thing never hurts."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from corolla_core.protocol.deterrence import (
    Exposure,
    Odds,
    Temptation,
    audit_needed,
    deters,
    diligence_pays,
    false_positive_allowed,
    honest_safe,
    planted_needed,
    stake_allowed,
    stake_needed,
)
from corolla_core.protocol.errors import Undeterrable
from corolla_core.protocol.probability import PARTS
from corolla_core.protocol.units import Nectar

amounts = st.integers(0, 10**27).map(Nectar)
gains = st.integers(1, 10**24).map(Nectar)
chances = st.integers(0, PARTS).map(lambda n: Fraction(n, PARTS))
likely = st.integers(1, PARTS).map(lambda n: Fraction(n, PARTS))
captures = st.integers(0, 99).map(lambda n: Fraction(n, 100))
odds = st.builds(Odds, likely, likely, captures)
temptations = st.builds(Temptation, gains, amounts)
own_shares = st.integers(0, 300).map(lambda n: Fraction(n, 1000))
exposures = st.builds(Exposure, amounts, amounts, own_shares)
margins = st.integers(1, 20)


@given(odds, temptations, amounts, own_shares, margins)
def test_the_stake_solved_for_deters_and_one_unit_less_does_not(
    odds: Odds, temptation: Temptation, locked: Nectar, share: Fraction, margin: int
) -> None:
    stake = stake_needed(odds, temptation, locked=locked, own_share=share, margin=margin)
    assert deters(odds, temptation, Exposure(stake, locked, share), margin=margin)
    if stake:
        assert not deters(odds, temptation, Exposure(Nectar(stake - 1), locked, share), margin=margin)


@given(likely, temptations, exposures, captures, margins)
def test_the_audit_rate_solved_for_deters_and_one_part_less_does_not(
    power: Fraction, temptation: Temptation, exposure: Exposure, capture: Fraction, margin: int
) -> None:
    try:
        rate = audit_needed(power, temptation, exposure, capture=capture, margin=margin)
    except Undeterrable:
        assert not deters(Odds(Fraction(1), power, capture), temptation, exposure, margin=margin)
        return
    less = rate - Fraction(1, PARTS)
    assert deters(Odds(min(rate, Fraction(1)), power, capture), temptation, exposure, margin=margin)
    assert less < 0 or not deters(Odds(less, power, capture), temptation, exposure, margin=margin)


@given(odds, odds, temptations, own_shares, amounts)
def test_more_audits_power_stake_or_locked_fees_never_deter_less(
    odds: Odds, other: Odds, temptation: Temptation, share: Fraction, more: Nectar
) -> None:
    just = stake_needed(odds, temptation, own_share=share)
    better = Odds(max(odds.audit, other.audit), max(odds.power, other.power), min(odds.capture, other.capture))
    assert deters(better, temptation, Exposure(just, own_share=share))
    assert deters(odds, temptation, Exposure(Nectar(just + more), more, share))


@given(odds, temptations, amounts, margins)
def test_a_larger_bribe_saving_or_margin_never_deters_more(
    odds: Odds, temptation: Temptation, more: Nectar, margin: int
) -> None:
    just = stake_needed(odds, temptation, margin=margin)
    assume(just > 0)
    short = Exposure(Nectar(just - 1))
    dearer = Temptation(Nectar(temptation.saved + more), Nectar(temptation.bribe + more))
    assert not deters(odds, dearer, short, margin=margin)
    assert not deters(odds, temptation, short, margin=margin + 1)


@given(odds, temptations)
def test_with_margin_one_a_cheat_just_breaks_even(odds: Odds, temptation: Temptation) -> None:
    stake = stake_needed(odds, temptation, margin=1)
    kept = temptation.total * (1 - odds.punished)
    assert kept <= odds.punished * stake < kept + 1


@given(likely, likely, amounts)
def test_the_stake_allowed_is_safe_for_honest_nodes_and_one_unit_more_is_not(
    audit: Fraction, false_positive: Fraction, profit: Nectar
) -> None:
    stake = stake_allowed(audit, false_positive, profit)
    assert stake is not None
    assert honest_safe(audit, false_positive, stake, profit)
    assert not honest_safe(audit, false_positive, Nectar(stake + 1), profit)


@given(chances, amounts, amounts)
def test_the_false_positive_rate_allowed_is_safe_and_one_part_more_is_not(
    audit: Fraction, stake: Nectar, profit: Nectar
) -> None:
    rate = false_positive_allowed(audit, stake, profit)
    assert honest_safe(audit, rate, stake, profit)
    assert rate == 1 or not honest_safe(audit, min(rate + Fraction(1, PARTS), Fraction(1)), stake, profit)


@given(gains, gains, gains)
def test_the_planted_rate_solved_for_makes_diligence_pay_and_one_part_less_does_not(
    reward: Nectar, stake: Nectar, cost: Nectar
) -> None:
    assume(cost < reward + stake)
    rate = planted_needed(reward=reward, stake=stake, cost=cost)
    assert diligence_pays(rate, reward=reward, stake=stake, cost=cost)
    assert not diligence_pays(rate - Fraction(1, PARTS), reward=reward, stake=stake, cost=cost)
