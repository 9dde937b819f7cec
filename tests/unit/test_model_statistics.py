"""Replaying and measuring a claim, on tiny models and made-up tensors."""

from __future__ import annotations

import math

import pytest
import torch
from model_zoo import HIDDEN, Zoo, tokens

from corolla_core.model.audited_span import load_audited_span
from corolla_core.model.next_norm import next_norm, rms_norm
from corolla_core.model.numeric import NF4_BLOCK, NF4_CODE, int8_per_channel, load_reference, load_served, nf4
from corolla_core.model.replay import open_rows, replay, run
from corolla_core.model.statistics import Measure, kl, matched, mismatches, window_means
from corolla_core.model.tensors import over_wire, to_wire
from corolla_core.protocol.errors import InvalidInput, TensorRejected
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import WINDOW, Outcome, Thresholds, judge

SPAN = Span(1, 3)
LENGTH = 40


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def inputs(zoo: Zoo) -> torch.Tensor:
    hidden = zoo.front("llama").embed(tokens(3, 2, LENGTH), position=0)
    return run(zoo.blocks("llama", Span(0, 1)), hidden)


@pytest.mark.parametrize("arch", ["llama", "gemma3", "mistral", "gpt2", "bloom"])
def test_one_prefill_in_any_chunks_gives_what_decoding_gave(zoo: Zoo, arch: str) -> None:
    blocks = zoo.blocks(arch, SPAN)
    hidden = zoo.front(arch).embed(tokens(3, 2, LENGTH), position=0)
    decoded = run(blocks, hidden, chunk=1)
    for chunk in (7, LENGTH, 1000):
        torch.testing.assert_close(
            replay(blocks, hidden, entering=torch.float32, chunk=chunk), decoded, rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("wire", [torch.float32, torch.bfloat16, torch.float16])
def test_opened_rows_are_the_rows_that_were_sent(wire: torch.dtype) -> None:
    sent = torch.randn(2, 5, HIDDEN).to(wire)
    rows = [bytes(to_wire(sent[:, at : at + 1])[2]) for at in range(5)]
    name = str(wire).removeprefix("torch.")
    assert torch.equal(open_rows(rows, wire=name, hidden_size=HIDDEN, batch=2), sent)
    for broken in ([], [*rows, rows[0][:-1]], [rows[0] + b"\0"]):
        with pytest.raises(TensorRejected):
            open_rows(broken, wire=name, hidden_size=HIDDEN, batch=2)


def test_what_cannot_be_replayed_is_refused(zoo: Zoo, inputs: torch.Tensor) -> None:
    blocks = zoo.blocks("llama", SPAN)
    spoiled = inputs.clone()
    spoiled[0, 3, 2] = math.nan
    for broken in (spoiled, inputs[0], inputs[:, :0], inputs[..., :-1], inputs * 1e38 * 10):
        with pytest.raises(TensorRejected):
            replay(blocks, broken, entering=torch.float32)
    with pytest.raises(InvalidInput):
        replay(load_served(zoo.checkpoint("llama"), SPAN, NumericClass.BF16), inputs, entering=torch.bfloat16)


def test_windows_cover_every_position_and_the_last_ends_at_the_end() -> None:
    spikes = torch.eye(WINDOW * 2 + 5)
    assert window_means(spikes).shape == (WINDOW * 2 + 5, 3)
    assert torch.allclose(window_means(spikes).amax(dim=1), torch.full((WINDOW * 2 + 5,), 1 / WINDOW))
    assert window_means(torch.ones(1, 3)).tolist() == [[1.0]]
    assert window_means(spikes[:, :WINDOW]).shape[1] == 1


def test_the_matched_filter_finds_its_cheat_in_noise_and_not_in_noise_alone() -> None:
    rng = torch.Generator().manual_seed(1)
    noise, cheat, other = (torch.randn(1, 64, 512, generator=rng) for _ in range(3))
    assert (matched(noise + cheat * 0.5, cheat * 0.5) - 1).abs().max() < 0.2
    assert matched(noise, other * 0.5).abs().max() < 0.2
    assert matched(noise, torch.zeros_like(noise)).tolist() == [[0.0] * 4]


def test_elements_are_compared_as_they_are_on_the_wire() -> None:
    honest = torch.randn(1, 4, 1000)
    assert mismatches(honest.bfloat16(), honest, "bfloat16").max() == 0
    other = honest.clone()
    other[..., :100] *= 1.01
    assert mismatches(other, honest, "bfloat16").min() > 0.05


def test_kl_is_nothing_between_equals_and_positive_otherwise() -> None:
    p, q = (torch.log_softmax(torch.randn(3, 7, 50), dim=-1) for _ in range(2))
    assert kl(p, p).max() == 0
    assert kl(p, q).min() > 0
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
    )
    torch.testing.assert_close(kl(p, q), expected)


def test_the_statistic_is_the_formula_of_the_protocol(zoo: Zoo, inputs: torch.Tensor) -> None:
    gamma = zoo.reference("llama").model.layers[SPAN.end].input_layernorm.weight.detach()
    epsilon = zoo.reference("llama").config.rms_norm_eps
    honest = run(zoo.blocks("llama", SPAN), inputs)
    claim = honest + 0.01 * torch.randn_like(honest)

    def normed(hidden: torch.Tensor) -> torch.Tensor:
        return hidden / (hidden.square().mean(-1, keepdim=True) + epsilon).sqrt() * gamma

    e = (normed(claim) - normed(honest)).norm(dim=-1) / normed(honest).norm(dim=-1)
    measured = Measure(next_norm(zoo.checkpoint("llama"), SPAN)).statistics(inputs, honest, claim)
    assert measured.positions == LENGTH - 1
    assert measured.w16_max == pytest.approx(float(window_means(e[:, 1:]).max()), rel=1e-4)


def test_only_position_0_is_excluded_and_only_where_it_was_claimed(zoo: Zoo, inputs: torch.Tensor) -> None:
    honest = run(zoo.blocks("llama", SPAN), inputs)
    claim = honest.clone()
    claim[:, 0] += 100
    measure = Measure(rms_norm)
    assert measure.statistics(inputs, honest, claim).w16_max == 0
    claim[:, 5] += 100
    assert measure.statistics(inputs, honest, claim).w16_max > 0.01
    late = measure.statistics(inputs, honest, claim[:, 5:], first=5)
    assert (late.positions, late.w16_max > 0.01) == (LENGTH - 5, True)
    assert measure.statistics(inputs, honest, claim[:, :1]).positions == 0


def test_a_row_that_was_only_made_longer_is_off_by_that_part(zoo: Zoo, inputs: torch.Tensor) -> None:
    audited = load_audited_span(zoo.checkpoint("llama"), SPAN, NumericClass.FP32, wire="float32")
    claim = audited.replay(inputs) * 1.001
    assert audited.statistics(inputs, claim).w16_max == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("broken", [math.nan, math.inf, 3e38])
def test_a_claim_that_is_no_number_or_overflows_fails(zoo: Zoo, inputs: torch.Tensor, broken: float) -> None:
    audited = load_audited_span(zoo.checkpoint("llama"), SPAN, NumericClass.BF16, wire="bfloat16")
    claim = audited.replay(inputs)
    claim[0, 20] = broken
    limits = Thresholds(NumericClass.BF16, "bfloat16", SPAN, 10**10, 10**12, None, 10**12)
    verdict = judge(audited.statistics(inputs, claim), limits)
    assert verdict.outcome is Outcome.FAILED


def test_claims_that_do_not_fit_the_session_are_refused(zoo: Zoo, inputs: torch.Tensor) -> None:
    audited = load_audited_span(zoo.checkpoint("llama"), SPAN, NumericClass.FP32, wire="float32")
    claim = audited.replay(inputs)
    short, flat, empty = claim[..., 1:], claim[0], claim[:, :0]
    for broken, first in ((claim[:1], 0), (claim, 1), (short, 0), (flat, 0), (empty, 0), (claim, -1)):
        with pytest.raises(TensorRejected):
            audited.statistics(inputs, broken, first=first)


@pytest.mark.parametrize("arch", ["llama", "gemma", "gpt2", "olmo2", "opt", "qwen3_moe", "gpt_oss", "falcon"])
def test_every_architecture_can_be_measured(zoo: Zoo, arch: str) -> None:
    checkpoint = zoo.checkpoint(arch)
    for span in (Span(0, 2), Span(2, 4)):
        hidden = zoo.front(arch).embed(tokens(5, 1, 24), position=0)
        if span.start:
            hidden = run(zoo.blocks(arch, Span(0, span.start)), hidden)
        audited = load_audited_span(checkpoint, span, NumericClass.BF16, wire="bfloat16")
        right = audited.statistics(hidden, run(load_served(checkpoint, span, NumericClass.BF16), hidden.bfloat16()))
        skipped = run(load_served(checkpoint, Span(span.start, span.end - 1), NumericClass.BF16), hidden.bfloat16())
        assert right.w16_max < 0.1 < audited.statistics(hidden, skipped).w16_max
        assert right.kl is not None
        assert right.kl < 0.1


def test_a_node_that_quantises_is_betrayed_by_the_matched_filter(zoo: Zoo, inputs: torch.Tensor) -> None:
    checkpoint = zoo.checkpoint("llama")
    audited = load_audited_span(checkpoint, SPAN, NumericClass.BF16, wire="bfloat16", every_block=True)
    for cheat in (NumericClass.INT8, NumericClass.NF4):
        found = audited.statistics(inputs, run(load_served(checkpoint, SPAN, cheat), inputs.bfloat16()))
        honest = audited.statistics(inputs, run(load_served(checkpoint, SPAN, NumericClass.BF16), inputs.bfloat16()))
        assert dict(found.alphas)[cheat.value] > 0.7
        assert abs(dict(honest.alphas)[cheat.value]) < 0.4
    assert {"int8 block 1", "int8 block 2"} < dict(found.alphas).keys()


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
def test_bfloat16_passed_off_as_float32_over_a_narrow_wire_shows_in_its_elements(
    zoo: Zoo, inputs: torch.Tensor, wire: str
) -> None:
    checkpoint = zoo.checkpoint("llama")
    audited = load_audited_span(checkpoint, SPAN, NumericClass.FP32, wire=wire)
    honest = audited.statistics(inputs, over_wire(run(zoo.blocks("llama", SPAN), inputs, chunk=1), wire))
    cheap = audited.statistics(inputs, over_wire(run(load_served(checkpoint, SPAN, NumericClass.BF16), inputs), wire))
    assert honest.w16_max < 2.5e-3
    assert honest.mismatch is not None
    assert cheap.mismatch is not None
    assert honest.mismatch < 0.02 < cheap.mismatch


def test_int8_keeps_rows_within_half_a_step_and_vectors_as_they_are() -> None:
    weight = torch.randn(6, 200) * torch.tensor([1e-3, 1, 1e3, 0, 1, 1])[:, None]
    held = int8_per_channel(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127
    assert ((held - weight).abs() <= step * 0.5001).all()
    assert torch.unique(held[1]).numel() > 40  # steps as fine as the largest number allows
    assert torch.equal(int8_per_channel(weight[0]), weight[0])


def test_nf4_takes_the_nearest_code_of_each_block() -> None:
    weight = torch.randn(3, NF4_BLOCK * 2 + 7)
    held = nf4(weight).reshape(-1)
    code = torch.tensor(NF4_CODE)
    for at in range(0, weight.numel(), NF4_BLOCK):
        block = weight.reshape(-1)[at : at + NF4_BLOCK]
        scaled = block / block.abs().max()
        nearest = code[(scaled[:, None] - code).abs().argmin(dim=1)] * block.abs().max()
        torch.testing.assert_close(held[at : at + NF4_BLOCK], nearest)
    assert torch.equal(nf4(torch.zeros(4, 4)), torch.zeros(4, 4))


def test_the_reference_of_a_class_holds_the_very_weights_its_nodes_hold(zoo: Zoo) -> None:
    for numeric_class in (NumericClass.BF16, NumericClass.NF4):
        served = load_served(zoo.checkpoint("llama"), SPAN, numeric_class)
        reference = load_reference(zoo.checkpoint("llama"), SPAN, numeric_class)
        assert (served.dtype, reference.dtype) == (torch.bfloat16, torch.float32)
        for held, wide in zip(served.parameters(), reference.parameters(), strict=True):
            assert torch.equal(held.float(), wide)
