"""Sessions computed in one pass: what each gets is what it gets alone, whoever is beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import BLOCKS, HIDDEN, ZOO, Zoo, farthest_position_llama
from torch import Tensor

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.cache import SpanCache
from corolla_core.protocol.errors import CorollaError, InvalidInput, PositionMismatch, TensorRejected
from corolla_core.protocol.span import Span

ONE_BY_ONE = {"bloom", "falcon", "falcon_alibi"}
"""Their attention is their own."""
FP32_NOISE = 2e-5
SPAN = Span(0, BLOCKS)

#: for each pass, for each session, how many positions it brings (0: it is not in this pass)
passes = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=6)


def error(output: Tensor | Exception, alone: Tensor | Exception) -> float:
    assert isinstance(output, Tensor)
    assert isinstance(alone, Tensor)
    assert output.shape == alone.shape
    return float(((output - alone).norm(dim=-1) / alone.norm(dim=-1)).max())


def inputs(tokens: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def warmed(part: BlockRange, lengths: list[int], *, max_tokens: int = 32) -> list[SpanCache]:
    """Caches with histories, computed one by one."""
    caches = [part.new_cache(1, max_tokens) for _ in lengths]
    for seed, (cache, length) in enumerate(zip(caches, lengths, strict=True)):
        part.forward(inputs(length, seed=100 + seed), cache)
    return caches


@pytest.mark.parametrize("arch", ZOO)
def test_the_trial_finds_who_can_share_a_pass(zoo: Zoo, arch: str) -> None:
    assert zoo.blocks(arch, SPAN).batches is (arch not in ONE_BY_ONE)
    assert zoo.blocks(arch, SPAN).sub(Span(1, 3)).batches is (arch not in ONE_BY_ONE)


@pytest.mark.parametrize("arch", ZOO)
@given(passes=passes, batches=st.tuples(*[st.integers(1, 2)] * 3), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_steps_of_any_lengths_give_what_they_give_alone(
    zoo: Zoo, arch: str, passes: list[tuple[int, ...]], batches: tuple[int, ...], seed: int
) -> None:
    part = zoo.blocks(arch, Span(1, 4))
    together, alone = ([part.new_cache(batch, 64) for batch in batches] for _ in range(2))
    # every example ends in decoding together, beyond the window where there is one
    for number, counts in enumerate([*passes, (7, 1, 3), (1, 1, 1), (1, 1, 1)]):
        turn = [(who, inputs(n, batch=batches[who], seed=seed + number)) for who, n in enumerate(counts) if n]
        outputs = part.forward_many([(hidden, together[who]) for who, hidden in turn])
        for (who, hidden), output in zip(turn, outputs, strict=True):
            assert error(output, part.forward(hidden, alone[who])) < FP32_NOISE
    assert [cache.length for cache in together] == [cache.length for cache in alone]


@pytest.mark.parametrize("arch", sorted(set(ZOO) - ONE_BY_ONE))
def test_positions_taken_from_another_session_are_as_good_as_computed(zoo: Zoo, arch: str) -> None:
    part = zoo.blocks(arch, Span(1, 4))
    whole = inputs(24, seed=5)
    source, alone, heir = (part.new_cache(1, 40) for _ in range(3))
    part.forward(whole[:, :19], source)
    expected = part.forward(whole, alone)
    heir.append(source.part(0, 8))
    heir.append(source.part(8, 16))
    source.crop(0)
    part.forward(inputs(19, seed=6), source)  # the copies are nobody else's
    assert heir.length == 16
    assert error(part.forward(whole[:, 16:], heir), expected[:, 16:]) < FP32_NOISE
    for turn in range(3):
        hidden = inputs(1, seed=7 + turn)
        assert error(part.forward(hidden, heir), part.forward(hidden, alone)) < FP32_NOISE
    heir.crop(10)
    assert error(part.forward(whole[:, 10:24], heir), expected[:, 10:]) < FP32_NOISE


def test_a_rotation_that_looks_at_the_farthest_session_is_not_shared(tmp_path: Path) -> None:
    part = farthest_position_llama(tmp_path)
    assert not part.batches
    near, far = (part.new_cache(1, 64) for _ in range(2))
    part.forward(inputs(40), far)
    alone = part.forward(inputs(3), part.new_cache(1, 64))
    output, _ = part.forward_many([(inputs(3), near), (inputs(1), far)])
    assert error(output, alone) == 0


@pytest.mark.parametrize(("dtype", "noise"), [(torch.float32, FP32_NOISE), (torch.bfloat16, 2e-2)])
def test_a_session_of_nan_reaches_no_other(zoo: Zoo, dtype: torch.dtype, noise: float) -> None:
    part = load_blocks(zoo.checkpoint("mixtral"), SPAN, dtype=dtype)
    assert part.batches
    steps = [(inputs(n, seed=n), cache) for n, cache in zip((1, 2, 1), warmed(part, [3, 5, 9]), strict=True)]
    good = part.forward_many(steps)
    caches = warmed(part, [3, 5, 9])
    bad = torch.full((1, 2, HIDDEN), float("nan"))
    outputs = part.forward_many([(steps[0][0], caches[0]), (bad, caches[1]), (steps[2][0], caches[2])])
    assert isinstance(outputs[1], Tensor)
    assert outputs[1].isnan().all()
    for index in (0, 2):
        assert error(outputs[index], good[index]) < noise


def _other_span(zoo: Zoo) -> tuple[Tensor, SpanCache]:
    return inputs(1), zoo.blocks("llama", Span(0, 2)).new_cache(1, 8)


def _full(zoo: Zoo) -> tuple[Tensor, SpanCache]:
    part = zoo.blocks("llama", SPAN)
    return inputs(1), warmed(part, [4], max_tokens=4)[0]


def _wrong_shape(zoo: Zoo) -> tuple[Tensor, SpanCache]:
    return torch.zeros(2, 1, HIDDEN), zoo.blocks("llama", SPAN).new_cache(1, 8)


@pytest.mark.parametrize(
    ("bad", "refusal"), [(_other_span, InvalidInput), (_full, PositionMismatch), (_wrong_shape, TensorRejected)]
)
def test_a_step_that_does_not_fit_is_refused_in_its_place(
    zoo: Zoo, bad: Callable[[Zoo], tuple[Tensor, SpanCache]], refusal: type[CorollaError]
) -> None:
    part = zoo.blocks("llama", SPAN)
    expected = part.forward_many([(inputs(1), cache) for cache in warmed(part, [3, 5])])
    first, second = warmed(part, [3, 5])
    outputs = part.forward_many([(inputs(1), first), bad(zoo), (inputs(1), second)])
    assert isinstance(outputs[1], refusal)
    assert [error(outputs[0], expected[0]), error(outputs[2], expected[1])] == [0, 0]


def test_a_session_that_fails_in_mid_pass_fails_alone_and_the_others_lose_nothing(zoo: Zoo) -> None:
    part = zoo.blocks("mistral", SPAN)
    assert part.batches
    expected = [part.forward(inputs(1), cache) for cache in warmed(part, [3, 9])]
    first, second, culprit = warmed(part, [3, 9, 4])

    def burst(*_args: object) -> None:
        raise MemoryError("no more")

    culprit.entries.layers[2].update = burst
    outputs = part.forward_many([(inputs(1), first), (inputs(1), culprit), (inputs(1), second)])
    assert isinstance(outputs[1], MemoryError)
    assert [error(outputs[0], expected[0]), error(outputs[2], expected[1])] == [0, 0]
    assert (first.length, second.length) == (4, 10)
    again = part.forward_many([(inputs(1, seed=1), first), (inputs(1, seed=1), second)])
    references = warmed(part, [3, 9])
    for cache, output in zip(references, again, strict=True):
        part.forward(inputs(1), cache)
        assert error(output, part.forward(inputs(1, seed=1), cache)) < FP32_NOISE


def test_no_step_is_no_work(zoo: Zoo) -> None:
    assert zoo.blocks("llama", SPAN).forward_many([]) == []
