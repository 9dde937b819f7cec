"""Judging and suspicion, for any statistics, thresholds and history of audits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from corolla_core.model.calibrated import Calibrated
from corolla_core.protocol.errors import InvalidInput, NotCalibrated
from corolla_core.protocol.ids import Hash32, ModelRoot
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.suspicion import FAILURES_TO_DISPUTE, PASSES_TO_FORGET, Standing, Suspicion
from corolla_core.protocol.verdict import (
    MAX_LIMIT,
    PICO,
    WINDOW,
    Calibration,
    Outcome,
    Reason,
    Statistics,
    Thresholds,
    Verdict,
    judge,
)

LIMITS = st.none() | st.integers(1, MAX_LIMIT)
SPANS = st.builds(lambda start, size: Span(start, start + size), st.integers(0, 20), st.integers(1, 20))
THRESHOLDS = st.builds(
    Thresholds,
    st.sampled_from(NumericClass),
    st.sampled_from(("float32", "bfloat16", "float16")),
    SPANS,
    st.integers(1, MAX_LIMIT),
    LIMITS,
    LIMITS,
    LIMITS,
)
SIZES = st.floats(0, 10, allow_nan=False)
STATISTICS = st.builds(
    Statistics,
    st.integers(WINDOW, 4096),
    SIZES,
    st.lists(st.tuples(st.sampled_from(("int8", "nf4")), st.floats(-2, 2)), max_size=2).map(tuple),
    st.none() | st.floats(0, 1),
    st.none() | SIZES,
)
ROOT = ModelRoot(bytes(32))
PASSED, UNDECIDED = Verdict(Outcome.PASSED), Verdict(Outcome.UNDECIDED)
FAILED = Verdict(Outcome.FAILED, (Reason("w16", 1.0, 0.1),))
#: few inputs, so that the same ones are met again
AUDITS = st.lists(
    st.tuples(st.sampled_from((PASSED, FAILED, UNDECIDED)), st.integers(0, 5).map(lambda n: Hash32(bytes([n] * 32)))),
    max_size=40,
)


def fresh(number: int) -> Hash32:
    return Hash32(number.to_bytes(32, "big"))


@given(STATISTICS, THRESHOLDS)
def test_exactly_what_exceeds_its_limit_is_a_reason(statistics: Statistics, limits: Thresholds) -> None:
    verdict = judge(statistics, limits)
    over = {f"alpha {name}" for name, alpha in statistics.alphas if limits.alpha and alpha * PICO > limits.alpha}
    for test in ("mismatch", "kl"):
        value, limit = getattr(statistics, test), getattr(limits, test)
        if value is not None and limit is not None and value * PICO > limit:
            over.add(test)
    if statistics.w16_max * PICO > limits.w16:
        over.add("w16")
    assert {reason.test for reason in verdict.reasons} == over
    assert verdict.failed == bool(over)


@given(STATISTICS, THRESHOLDS, st.sampled_from((math.nan, math.inf, -math.inf)), st.integers(0, 40))
def test_what_is_no_number_fails_however_few_positions_and_without_a_limit(
    statistics: Statistics, limits: Thresholds, broken: float, positions: int
) -> None:
    for spoiled in (
        replace(statistics, positions=positions, w16_max=broken),
        replace(statistics, positions=positions, alphas=(("int8", broken),)),
        replace(statistics, positions=positions, mismatch=broken),
        replace(statistics, positions=positions, kl=broken),
    ):
        assert judge(spoiled, limits).failed


@given(STATISTICS, THRESHOLDS, st.integers(0, WINDOW - 1))
def test_less_than_a_window_decides_nothing(statistics: Statistics, limits: Thresholds, positions: int) -> None:
    assert judge(replace(statistics, positions=positions), limits).outcome is Outcome.UNDECIDED


@given(STATISTICS, THRESHOLDS, st.floats(0, 5))
def test_a_larger_error_never_acquits(statistics: Statistics, limits: Thresholds, more: float) -> None:
    worse = replace(
        statistics,
        w16_max=statistics.w16_max + more,
        alphas=tuple((name, alpha + more) for name, alpha in statistics.alphas),
        kl=None if statistics.kl is None else statistics.kl + more,
    )
    assert judge(worse, limits).failed or not judge(statistics, limits).failed


@given(st.lists(THRESHOLDS, min_size=1, max_size=6, unique_by=lambda entry: entry.key), st.randoms())
def test_a_calibration_has_one_root_in_any_order_and_survives_its_file(entries: list[Thresholds], rng: object) -> None:
    calibration = Calibration.of(ROOT, entries)
    rng.shuffle(entries)  # type: ignore[attr-defined]
    assert Calibration.of(ROOT, entries).root() == calibration.root()
    again = Calibrated.from_json(Calibrated("m", calibration, {}).to_json())
    assert again.calibration == calibration


@given(st.lists(THRESHOLDS, min_size=1, max_size=4, unique_by=lambda entry: entry.key), LIMITS, st.integers(0, 3))
def test_any_change_of_a_limit_changes_the_root(entries: list[Thresholds], limit: int | None, which: int) -> None:
    test = ("w16", "alpha", "mismatch", "kl")[which]
    assume(getattr(entries[0], test) != limit and not (test == "w16" and limit is None))
    changed = [replace(entries[0], **{test: limit}), *entries[1:]]
    assert Calibration.of(ROOT, changed).root() != Calibration.of(ROOT, entries).root()


@given(st.lists(THRESHOLDS, min_size=1, max_size=8, unique_by=lambda entry: entry.key), SPANS)
def test_an_uncalibrated_span_is_never_judged_by_a_shorter_ones_noise(entries: list[Thresholds], span: Span) -> None:
    calibration = Calibration.of(ROOT, entries)
    numeric_class, wire = entries[0].numeric_class, entries[0].wire
    alike = [e for e in entries if (e.numeric_class, e.wire) == (numeric_class, wire)]
    if all(len(entry.span) < len(span) for entry in alike):
        with pytest.raises(NotCalibrated):
            calibration.find(numeric_class, wire, span)
        return
    found = calibration.find(numeric_class, wire, span)
    same = [entry for entry in alike if entry.span == span]
    assert found.span == span
    assert found.w16 >= min(entry.w16 for entry in alike if len(entry.span) >= len(span))
    assert not same or found == same[0]


@pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1, True, 1.5, "1"])
def test_a_limit_that_judges_nothing_or_everything_is_refused(limit: object) -> None:
    with pytest.raises(InvalidInput):
        Thresholds(NumericClass.BF16, "bfloat16", Span(0, 1), 10, kl=limit)  # type: ignore[arg-type]


def test_a_calibration_file_whose_thresholds_were_loosened_is_refused() -> None:
    entry = Thresholds(NumericClass.BF16, "bfloat16", Span(0, 1), 12345)
    text = Calibrated("m", Calibration.of(ROOT, [entry]), {}).to_json()
    for spoiled in (text.replace("12345", "99999"), "{}", "[]", text[:-9], text.replace('"0:1"', '"1:0"')):
        with pytest.raises(InvalidInput):
            Calibrated.from_json(spoiled)


@given(AUDITS)
def test_suspicion_counts_different_inputs_only(audits: list[tuple[Verdict, Hash32]]) -> None:
    suspicion = Suspicion()
    for verdict, in_root in audits:
        suspicion = suspicion.after(verdict, in_root)
    failed = {in_root for verdict, in_root in audits if verdict.failed}
    # six inputs are too few to forget by: nothing fades
    assert suspicion.failures == min(len(failed), FAILURES_TO_DISPUTE)


@given(AUDITS)
def test_quarantine_begins_at_the_first_failure(audits: list[tuple[Verdict, Hash32]]) -> None:
    suspicion, failed = Suspicion(), False
    for verdict, in_root in audits:
        suspicion = suspicion.after(verdict, in_root)
        failed = failed or verdict.failed
        assert (suspicion.standing is not Standing.CLEAR) == failed


@given(AUDITS)
def test_once_disputed_a_node_waits_for_the_jury(audits: list[tuple[Verdict, Hash32]]) -> None:
    suspicion = Suspicion()
    for number in range(FAILURES_TO_DISPUTE):
        suspicion = suspicion.after(FAILED, fresh(1000 + number))
    disputed = suspicion
    for verdict, in_root in audits:
        suspicion = suspicion.after(verdict, in_root)
    assert suspicion == disputed
    assert suspicion.standing is Standing.DISPUTED


def test_one_failure_fades_after_enough_passes_on_different_inputs_and_not_before() -> None:
    suspicion = Suspicion().after(FAILED, fresh(0)).after(FAILED, fresh(1))
    for number in range(PASSES_TO_FORGET):
        assert suspicion.failures == 2
        suspicion = suspicion.after(PASSED, fresh(100)).after(PASSED, fresh(100 + number))
    assert suspicion.failures == 1
    for number in range(PASSES_TO_FORGET - 1):
        suspicion = suspicion.after(PASSED, fresh(100 + number))
    assert suspicion.standing is Standing.QUARANTINED
    assert suspicion.after(PASSED, fresh(99)).standing is Standing.CLEAR


def test_a_faded_failure_is_not_counted_again() -> None:
    suspicion = Suspicion().after(FAILED, fresh(0))
    for number in range(PASSES_TO_FORGET):
        suspicion = suspicion.after(PASSED, fresh(100 + number))
    assert suspicion.standing is Standing.CLEAR
    assert suspicion.after(FAILED, fresh(0)).standing is Standing.CLEAR
    assert suspicion.after(FAILED, fresh(1)).standing is Standing.QUARANTINED


def test_a_failure_on_an_input_that_had_passed_counts() -> None:
    assert Suspicion().after(PASSED, fresh(0)).after(FAILED, fresh(0)).standing is Standing.QUARANTINED
