"""Real weights at the thresholds we ship: honest nodes pass in every variant, and the coarse cheats do not."""

from __future__ import annotations

import pytest
import torch
from cheats import CHEATS, Stage, bf16
from torch import Tensor

from corolla_core.model.audited_span import load_audited_span
from corolla_core.model.block_range import load_blocks
from corolla_core.model.calibrated import shipped_calibration
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.front import load_front
from corolla_core.model.manifest import Manifest
from corolla_core.model.numeric import COMPUTE_DTYPES, load_reference, load_served
from corolla_core.model.replay import run
from corolla_core.model.smollm import prepare_smollm
from corolla_core.model.tensors import wire_dtype
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import PICO, Outcome, Verdict, judge
from corolla_validator.honest import VARIANTS
from corolla_validator.texts import passages

SPAN = Span(10, 20)
LENGTH = 40


class Court:
    """One node of a class on a span, and what it is judged by."""

    def __init__(
        self, checkpoint: Checkpoint, hidden: Tensor, numeric_class: NumericClass, wire: str, span: Span
    ) -> None:
        self.limits = shipped_calibration(Manifest.beside(checkpoint).root).calibration.find(numeric_class, wire, span)
        self.wire = wire_dtype(wire)
        before = run(load_blocks(checkpoint, Span(0, span.start)), hidden)
        self.inputs = before.to(self.wire).to(COMPUTE_DTYPES[numeric_class])
        audited = load_audited_span(checkpoint, span, numeric_class, wire=wire, with_kl=False)
        served = load_served(checkpoint, span, numeric_class)
        self.stage = Stage(checkpoint, span, numeric_class, served, audited, self.limits.w16 / PICO)

    def verdict(self, claimed: Tensor) -> Verdict:
        return judge(self.stage.audited.statistics(self.inputs, claimed.to(self.wire)), self.limits)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.set_num_threads(1)
    return open_checkpoint(str(prepare_smollm()))


@pytest.fixture(scope="module")
def hidden(checkpoint: Checkpoint) -> Tensor:
    ids = passages(checkpoint.tokenizer(), length=LENGTH, part=1)[0]
    return load_front(checkpoint).embed(ids, position=0)


def test_honest_float32_passes_in_every_variant_and_cheaper_work_does_not(
    checkpoint: Checkpoint, hidden: Tensor
) -> None:
    court = Court(checkpoint, hidden, NumericClass.FP32, "float32", SPAN)
    for variant in VARIANTS:
        assert court.verdict(variant.outputs(court.stage.honest, court.inputs)).outcome is Outcome.PASSED
    for name in ("skip one block", "wrong weights", "NF4 on one block", "int8 KV", "1 % noise"):
        assert court.verdict(CHEATS[name](court.stage, court.inputs)).failed, name
    assert court.verdict(bf16(court.stage, court.inputs)).failed


def test_honest_int8_weights_pass_in_every_variant_and_nf4_in_their_place_does_not(
    checkpoint: Checkpoint, hidden: Tensor
) -> None:
    for wire in ("float32", "bfloat16"):
        court = Court(checkpoint, hidden, NumericClass.INT8, wire, SPAN)
        given = court.inputs.float()
        for variant in VARIANTS:
            assert court.verdict(variant.outputs(court.stage.honest, given)).outcome is Outcome.PASSED
        assert court.verdict(CHEATS["skip one block"](court.stage, given)).failed
        assert court.verdict(run(load_reference(checkpoint, SPAN, NumericClass.NF4), given)).failed


def test_what_a_captured_program_decodes_is_honest_alone_and_in_company(checkpoint: Checkpoint, hidden: Tensor) -> None:
    court = Court(checkpoint, hidden, NumericClass.FP32, "float32", SPAN)
    assert court.stage.honest.capture() is None
    decoding = [variant for variant in VARIANTS if variant.chunk == 1]
    assert len(decoding) == 2
    for variant in decoding:
        assert court.verdict(variant.outputs(court.stage.honest, court.inputs)).outcome is Outcome.PASSED


def test_the_shipped_thresholds_are_the_ones_their_evidence_gives(checkpoint: Checkpoint) -> None:
    found = shipped_calibration(Manifest.beside(checkpoint).root)
    for entry in found.calibration.entries:
        tail = found.evidence[entry.key]["tails"]["w16"]
        assert entry.w16 / PICO >= max(tail["fitted"] or 0, 1.2 * tail["largest"]) * (1 - 1e-9)
