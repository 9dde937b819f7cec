"""The simulation's parts: the path from suspicion to dispute, the detection table, the honest noise."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from benchmarks.market.detection import CLASSES, DESIGN, Noise, load_detection
from benchmarks.market.kinds import KINDS
from benchmarks.market.rules import Rules
from benchmarks.market.suspicion import FAILURES, FORGET, RETESTS, Standing, Suspicion, after_audit
from benchmarks.market.sweep import least_stake
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol.deterrence import diligence_pays, honest_safe
from corolla_core.protocol.units import Nectar


def after(results: list[bool]) -> Suspicion:
    suspicion = Suspicion()
    for failed in results:
        suspicion = after_audit(suspicion, failed=failed)
    return suspicion


@given(st.lists(st.booleans(), max_size=60))
def test_nobody_is_disputed_before_three_failures_and_everybody_after(results: list[bool]) -> None:
    assert (after(results).standing is Standing.DISPUTED) == (sum(results) >= FAILURES)


def test_the_first_failure_quarantines_and_three_clean_inputs_release() -> None:
    assert after([True]).standing is Standing.QUARANTINED
    assert after([True] + [False] * (RETESTS - 1)).standing is Standing.QUARANTINED
    assert after([True] + [False] * RETESTS).standing is Standing.TRUSTED


def test_behaving_in_quarantine_does_not_wash_failures_off() -> None:
    assert after([True, *[False] * RETESTS] * FAILURES).standing is Standing.DISPUTED


def test_a_failure_is_forgotten_after_a_hundred_clean_audits() -> None:
    assert after([True] + [False] * (RETESTS + FORGET)) == Suspicion()


def test_the_design_table_covers_every_kind_in_every_class() -> None:
    detection = load_detection(measured=Path("none"))
    assert not detection.measured
    for kind in KINDS:
        for name in CLASSES:
            assert 0 <= detection.power(kind.cheat, name).rate <= 1
    assert detection.power("int8_per_channel", "bf16").rate == 0
    assert detection.power("int8_per_channel", "fp32").rate == Fraction(99, 100)


def test_every_design_figure_says_where_it_comes_from() -> None:
    assert all(each["source"] for each in json.loads(DESIGN.read_text())["records"])


@pytest.mark.parametrize("several", [True, False])
def test_measured_figures_replace_the_designs_where_there_are_any(tmp_path: Path, several: bool) -> None:
    wrong = {"class": "bf16", "flagged": 3, "trials": 1000}
    measured = tmp_path / "detection.json"
    measured.write_text(
        json.dumps(
            {
                "records": [
                    {"cheat": "int8_per_channel", "class": "bf16", "detected": 30, "trials": 40, "median": 0.01},
                    {"cheat": "a cheat nobody simulates", "class": "bf16", "detected": 1, "trials": 1},
                    {"cheat": "nf4", "class": "bf16", "detected": 0, "trials": 0},
                ],
                "false_positives": [wrong] if several else wrong,
            }
        )
    )
    detection = load_detection(measured=measured)
    assert detection.measured
    assert detection.power("int8_per_channel", "bf16").rate == Fraction(3, 4)
    assert detection.power("nf4", "bf16").rate == Fraction(99, 100)
    assert detection.noise["bf16"].false_positive() == pytest.approx(0.003)
    assert detection.noise["fp32"].false_positive() < 1e-9


def test_the_honest_tail_passes_through_its_calibration() -> None:
    """One audit in 1e5 exceeds the largest value calibration saw, one in a hundred six tenths of it."""
    assert Noise(maximum=1.0, threshold=1.0).false_positive() == pytest.approx(1e-5)
    assert Noise(maximum=1.0, threshold=0.6).false_positive() == pytest.approx(1e-2)


def test_at_the_calibrated_thresholds_an_honest_node_is_flagged_less_than_once_in_a_million_audits() -> None:
    for noise in load_detection(measured=Path("none")).noise.values():
        assert noise.false_positive() < 1e-6
        assert noise.false_positive(1.05) > noise.false_positive(0.95)


def test_the_stakes_simulated_are_safe_for_honest_nodes() -> None:
    """p · φ · S ≤ profit / 10, per average session, for the noisiest hardware simulated."""
    rules = Rules()
    profit = Nectar((rules.price - rules.cost) * rules.mean_tokens * rules.blocks)
    flagged = max(noise.false_positive(1.05) for noise in load_detection(measured=Path("none")).noise.values())
    assert honest_safe(rules.audit, Fraction(flagged), Nectar(rules.stake_cap), profit)


def test_the_faults_planted_make_diligence_pay() -> None:
    rules = Rules()
    missed = Nectar(int(rules.validator_stake * rules.slash_missed))
    reward, cost = Nectar(rules.audit_reward), Nectar(rules.audit_cost)
    assert diligence_pays(rules.planted, reward=reward, stake=missed, cost=cost)
    assert not diligence_pays(Fraction(0), reward=reward, stake=missed, cost=cost)


def test_the_least_stake_grows_with_the_margin() -> None:
    detection = load_detection(measured=Path("none"))
    early_exit = next(kind for kind in KINDS if kind.name == "early exit")
    one, three = (least_stake(Rules(), detection, early_exit, margin=margin) for margin in (1, 3))
    assert 2.9 < three / one < 3.1
    assert three < Rules().min_stake
