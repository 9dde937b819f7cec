"""Measuring honest noise, fitting its tail, and the `validator calibrate` command, on tiny models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from model_zoo import Zoo, tokens
from typer.testing import CliRunner

from corolla_core.model.calibrated import Calibrated, shipped_calibration
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.protocol.errors import InvalidInput, NotCalibrated
from corolla_core.protocol.ids import ModelRoot
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import PICO, WINDOW, Statistics, judge
from corolla_validator.calibrate import LEAST_ALPHA, LEAST_KL, LEAST_MISMATCH, LEAST_W16, Noise, measure_noise
from corolla_validator.cli.main import app, default_spans
from corolla_validator.evidence import calibrated
from corolla_validator.honest import VARIANTS
from corolla_validator.tail import HEADROOM, fit_tail
from corolla_validator.texts import passages, prose

SPAN = Span(1, 3)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def manifest(zoo: Zoo) -> Manifest:
    return build_manifest(zoo.checkpoint("llama"), name="tiny")


PASSAGES = sum(variant.batch for variant in VARIANTS)
"""As many as every variant takes part with."""


def noise_of(zoo: Zoo, manifest: Manifest, numeric_class: NumericClass) -> list[Noise]:
    texts = [tokens(seed, 1, 40) for seed in range(PASSAGES)]
    checkpoint = zoo.checkpoint("llama")
    return measure_noise(checkpoint, manifest, numeric_class, [SPAN], texts, report=lambda *_progress: None)


def test_a_fit_reads_the_far_quantile_of_a_known_tail() -> None:
    rng = np.random.default_rng(5)
    tail = fit_tail(rng.exponential(1.0, 20_000).tolist())
    assert tail.shape == pytest.approx(0, abs=0.1)
    # of an exponential the value exceeded once in 10^6 is ln 10^6
    assert tail.fitted == pytest.approx(np.log(1e6), rel=0.25)
    assert tail.threshold >= HEADROOM * tail.largest


def test_a_fit_does_not_depend_on_the_unit() -> None:
    samples = np.random.default_rng(6).gamma(4.0, 1.0, 500)
    small, large = (fit_tail((samples * unit).tolist()) for unit in (1e-7, 1e3))
    assert small.threshold == pytest.approx(large.threshold * 1e-10, rel=1e-3)


def test_few_samples_get_headroom_and_no_fit() -> None:
    tail = fit_tail([0.1, 0.2, 0.3])
    assert (tail.fitted, tail.threshold) == (None, pytest.approx(0.36))
    assert fit_tail([0.5] * 1000).threshold == pytest.approx(0.6)


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")]])
def test_a_tail_is_of_finite_numbers(samples: list[float]) -> None:
    with pytest.raises(InvalidInput):
        fit_tail(samples)


@pytest.mark.parametrize("numeric_class", [NumericClass.FP32, NumericClass.BF16, NumericClass.INT8, NumericClass.NF4])
def test_thresholds_lie_above_every_honest_variant_that_was_measured(
    zoo: Zoo, manifest: Manifest, numeric_class: NumericClass
) -> None:
    noises = noise_of(zoo, manifest, numeric_class)
    wires = ["bfloat16", "float32", *(["int8"] if numeric_class is NumericClass.FP32 else [])]
    assert sorted(noise.wire for noise in noises) == wires
    for noise in noises:
        limits = noise.thresholds()
        assert len(noise.w16) == PASSAGES * 3
        worst = Statistics(
            WINDOW,
            max(noise.w16),
            (("int8", max(noise.alpha)),) if noise.alpha else (),
            max(noise.mismatch) if noise.mismatch else None,
            max(noise.kl) if noise.kl else None,
        )
        assert not judge(worst, limits).failed
        assert judge(replace(worst, w16_max=2 * limits.w16 / PICO), limits).failed


def test_no_limit_is_tighter_than_what_other_machines_may_need(zoo: Zoo, manifest: Manifest) -> None:
    found = {noise.wire: noise.thresholds() for noise in noise_of(zoo, manifest, NumericClass.FP32)}
    assert (found["float32"].w16, found["float32"].mismatch) == (round(1e-5 * PICO), None)
    for narrow in ("bfloat16", "int8"):
        assert (found[narrow].w16, found[narrow].mismatch) == (round(2.5e-3 * PICO), round(LEAST_MISMATCH * PICO))
    bf16 = noise_of(zoo, manifest, NumericClass.BF16)[0].thresholds()
    assert bf16.w16 >= LEAST_W16[torch.bfloat16, bf16.wire] * PICO
    assert bf16.alpha is not None
    assert bf16.alpha >= LEAST_ALPHA * PICO
    assert bf16.kl is not None
    assert bf16.kl >= LEAST_KL * PICO


def test_measuring_again_on_the_same_machine_gives_the_same_root(zoo: Zoo, manifest: Manifest) -> None:
    first, second = (
        calibrated(manifest, noise_of(zoo, manifest, NumericClass.BF16), length=40, seconds=seconds)
        for seconds in (1.0, 2.0)
    )
    assert first.calibration.root() == second.calibration.root()
    evidence = first.evidence[("bf16", "bfloat16", SPAN)]
    assert evidence["tokens"] == 40 * PASSAGES
    assert {"tails", "machine", "versions", "variants", "text_sha256"} < evidence.keys()


def test_merging_keeps_what_was_not_measured_anew_and_refuses_another_model(zoo: Zoo, manifest: Manifest) -> None:
    fp32 = calibrated(manifest, noise_of(zoo, manifest, NumericClass.FP32), length=40, seconds=1)
    nf4 = calibrated(manifest, noise_of(zoo, manifest, NumericClass.NF4), length=40, seconds=1)
    both = fp32.merged(nf4)
    assert both.calibration.entries == (*fp32.calibration.entries, *nf4.calibration.entries)
    assert Calibrated.from_json(both.to_json()) == both
    other = replace(nf4, calibration=replace(nf4.calibration, model_root=ModelRoot(bytes(32))))
    with pytest.raises(InvalidInput):
        fp32.merged(other)


def test_passages_for_measuring_and_for_testing_do_not_overlap() -> None:
    def letters(text: str, **_options: object) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text)))}

    first, second = (passages(letters, length=100, part=part) for part in (0, 1))
    seen = [int(each[0, 0]) for each in (*first, *second)]
    assert len(set(seen)) == len(seen) == len(prose()) // 100
    # the first few come from all over the text
    assert np.ptp([int(each[0, 0]) for each in first[:8]]) > len(prose()) / 2
    with pytest.raises(InvalidInput):
        passages(letters, length=len(prose()) + 1, part=0)


def test_default_spans_cover_a_model_in_thirds_and_whole() -> None:
    assert default_spans(30) == [Span(0, 10), Span(10, 20), Span(20, 30), Span(0, 30)]
    assert default_spans(1) == [Span(0, 1)]


def test_a_model_that_nobody_measured_has_no_thresholds() -> None:
    with pytest.raises(NotCalibrated):
        shipped_calibration(ModelRoot(bytes(32)))


def test_the_command_says_what_is_wrong_and_spoils_no_file(zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(zoo.folder("llama"), folder)
    (folder / "corolla.manifest.json").write_text(build_manifest(zoo.checkpoint("llama"), name="tiny").to_json())
    other = tmp_path / "notes.json"
    other.write_text(json.dumps({"my": "notes"}))
    runner = CliRunner()
    for arguments in (["--out", str(other)], ["--span", "3:1"], ["--class", "fp7"], [str(tmp_path / "nowhere")]):
        done = runner.invoke(app, ["calibrate", str(folder), *arguments])
        assert done.exit_code in (1, 2)
        assert done.stdout == ""
    assert json.loads(other.read_text()) == {"my": "notes"}
