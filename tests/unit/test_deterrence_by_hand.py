"""The figures of the deterrence inequalities, worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

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
from corolla_core.protocol.errors import InvalidInput, InvalidProbability, Undeterrable
from corolla_core.protocol.units import Nectar


def test_a_saving_of_100_audited_at_5_percent_needs_57_times_as_much_stake() -> None:
    odds = Odds(Fraction(1, 20), Fraction(1))
    assert odds.punished == Fraction(1, 20)
    assert stake_needed(odds, Temptation(Nectar(100))) == 3 * 100 * 19


def test_locked_fees_stand_in_for_stake() -> None:
    odds = Odds(Fraction(1, 20), Fraction(1))
    assert stake_needed(odds, Temptation(Nectar(100)), locked=Nectar(700)) == 5000
    assert stake_needed(odds, Temptation(Nectar(100)), locked=Nectar(5700)) == 0


def test_a_challenger_share_of_30_percent_asks_for_ten_sevenths_of_the_stake() -> None:
    odds = Odds(Fraction(1, 20), Fraction(1))
    assert stake_needed(odds, Temptation(Nectar(700)), own_share=Fraction(3, 10)) == 57_000


def test_a_captured_jury_lowers_the_odds() -> None:
    assert Odds(Fraction(1, 2), Fraction(1, 2), Fraction(1, 5)).punished == Fraction(1, 5)


def test_a_stake_of_5700_asks_for_five_percent_of_audits() -> None:
    assert audit_needed(Fraction(1), Temptation(Nectar(100)), Exposure(Nectar(5700))) == Fraction(1, 20)
    assert audit_needed(Fraction(1, 2), Temptation(Nectar(100)), Exposure(Nectar(5700))) == Fraction(1, 10)


def test_what_no_audit_can_see_no_stake_deters() -> None:
    blind = Odds(Fraction(1), Fraction(0))
    assert not deters(blind, Temptation(Nectar(1)), Exposure(Nectar(10**30)))
    with pytest.raises(Undeterrable) as no_stake:
        stake_needed(blind, Temptation(Nectar(1)))
    assert no_stake.value.name == "stake"
    with pytest.raises(Undeterrable) as no_audit:
        audit_needed(Fraction(0), Temptation(Nectar(1)), Exposure(Nectar(10**30)))
    assert no_audit.value.name == "audit"


def test_a_cheat_that_brings_nothing_needs_neither_stake_nor_audit() -> None:
    assert deters(Odds(Fraction(0), Fraction(0)), Temptation(Nectar(0)), Exposure(Nectar(0)))
    assert stake_needed(Odds(Fraction(0), Fraction(0)), Temptation(Nectar(0))) == 0
    assert audit_needed(Fraction(0), Temptation(Nectar(0)), Exposure(Nectar(0))) == 0


def test_an_attacker_that_gets_its_whole_stake_back_is_not_deterred() -> None:
    with pytest.raises(Undeterrable):
        stake_needed(Odds(Fraction(1, 2), Fraction(1)), Temptation(Nectar(1)), own_share=Fraction(1))


def test_an_honest_node_is_safe_up_to_a_tenth_of_its_profit() -> None:
    rate = Fraction(1, 1_000_000)
    assert stake_allowed(Fraction(1, 20), rate, Nectar(100)) == 200_000_000
    assert honest_safe(Fraction(1, 20), rate, Nectar(200_000_000), Nectar(100))
    assert not honest_safe(Fraction(1, 20), rate, Nectar(200_000_001), Nectar(100))
    assert false_positive_allowed(Fraction(1, 20), Nectar(200_000_000), Nectar(100)) == rate


def test_no_stake_is_too_much_without_false_positives() -> None:
    assert stake_allowed(Fraction(1), Fraction(0), Nectar(1)) is None
    assert false_positive_allowed(Fraction(0), Nectar(10**30), Nectar(1)) == 1


def test_diligence_must_pay_strictly() -> None:
    assert not diligence_pays(Fraction(1, 100), reward=Nectar(40), stake=Nectar(60), cost=Nectar(1))
    assert planted_needed(reward=Nectar(40), stake=Nectar(60), cost=Nectar(1)) == Fraction(10_001, 1_000_000)
    with pytest.raises(Undeterrable):
        planted_needed(reward=Nectar(1), stake=Nectar(1), cost=Nectar(2))


@pytest.mark.parametrize("value", [Fraction(-1, 10), Fraction(11, 10), 2, -1, 0.5, True, "1/2", None])
def test_a_probability_is_exact_and_between_nought_and_one(value: object) -> None:
    for name in ("audit", "power", "capture"):
        with pytest.raises(InvalidProbability) as refused:
            Odds(**({"audit": 1, "power": 1, "capture": 0} | {name: value}))  # type: ignore[arg-type]
        assert refused.value.name == name
    with pytest.raises(InvalidProbability):
        honest_safe(value, Fraction(0), Nectar(1), Nectar(1))  # type: ignore[arg-type]
    with pytest.raises(InvalidProbability):
        diligence_pays(value, reward=Nectar(1), stake=Nectar(1), cost=Nectar(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", [-1, 0.5, True, "1"])
def test_money_is_whole_and_not_negative(amount: object) -> None:
    for make in (
        lambda: Temptation(amount),  # type: ignore[arg-type]
        lambda: Exposure(amount),  # type: ignore[arg-type]
        lambda: stake_allowed(Fraction(0), Fraction(0), amount),  # type: ignore[arg-type]
        lambda: planted_needed(reward=amount, stake=Nectar(1), cost=Nectar(1)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInput):
            make()


@pytest.mark.parametrize("margin", [0, -3, 1.5])
def test_a_margin_is_a_whole_number_from_one(margin: object) -> None:
    with pytest.raises(InvalidInput):
        deters(Odds(1, 1), Temptation(Nectar(1)), Exposure(Nectar(1)), margin=margin)  # type: ignore[arg-type]
