"""Steps by a captured program: the numbers of the model's own code, or the model's own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import BLOCKS, HIDDEN, ZOO, Zoo, farthest_position_llama
from torch import Tensor, nn

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.cache import SpanCache
from corolla_core.protocol.span import Span

NOT_CAPTURED = {"bloom", "falcon", "falcon_alibi", "gemma2", "gpt_oss"}
"""Their attention is their own, or needs more than torch's."""
WINDOWED = {"mistral", "gemma3"}
"""Where keys are hidden transformers makes a mask, and torch has another kernel for it."""
NOISE = {name: 2e-6 if name in WINDOWED else 0.0 for name in ZOO if name not in NOT_CAPTURED}
SPAN = Span(0, BLOCKS)

Captured = Callable[[str], BlockRange]


@pytest.fixture(scope="module")
def captured(zoo: Zoo) -> Captured:
    """Ranges of their own: those of the zoo go on by the model's code, and are what these are compared with."""
    made: dict[str, BlockRange] = {}

    def of(arch: str) -> BlockRange:
        if arch not in made:
            made[arch] = load_blocks(zoo.checkpoint(arch), SPAN)
            assert made[arch].capture() is None
        return made[arch]

    return of


def inputs(tokens: int, *, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def error(output: Tensor | Exception, expected: Tensor | Exception) -> float:
    assert isinstance(output, Tensor)
    assert isinstance(expected, Tensor)
    assert output.shape == expected.shape
    return float(((output - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def spied(part: BlockRange, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each call of the program is given."""
    assert part._lean is not None
    calls: list[int] = []
    run = part._lean.run
    monkeypatch.setattr(part._lean, "run", lambda steps: calls.append(len(steps)) or run(steps))
    return calls


@pytest.mark.parametrize("arch", sorted(NOT_CAPTURED))
def test_what_cannot_be_captured_says_why_and_goes_on_by_itself(zoo: Zoo, arch: str) -> None:
    part = load_blocks(zoo.checkpoint(arch), SPAN)
    assert part.capture()
    own, reference = part.new_cache(1, 8), zoo.blocks(arch, SPAN).new_cache(1, 8)
    for count in (3, 1, 1):
        hidden = inputs(count, seed=count)
        assert torch.equal(part.forward(hidden, own), zoo.blocks(arch, SPAN).forward(hidden, reference))


@pytest.mark.parametrize("arch", NOISE)
@given(prompt=st.integers(0, 12), batch=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_a_session_alone_gets_the_very_numbers_of_the_model(
    zoo: Zoo, captured: Captured, arch: str, prompt: int, batch: int, seed: int
) -> None:
    lean, model = captured(arch), zoo.blocks(arch, SPAN)
    own, reference = lean.new_cache(batch, 64), model.new_cache(batch, 64)
    for step, count in enumerate([prompt, 1, 1, 4, 9, 1]):
        if count:
            hidden = inputs(count, batch=batch, seed=seed + step)
            assert error(lean.forward(hidden, own), model.forward(hidden, reference)) <= NOISE[arch]


@pytest.mark.parametrize("arch", NOISE)
@given(sessions=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 2), st.integers(1, 3)), min_size=2, max_size=20))
@settings(max_examples=8, deadline=None)
def test_sessions_of_any_lengths_and_rows_share_a_program(
    zoo: Zoo, captured: Captured, arch: str, sessions: list[tuple[int, int, int]]
) -> None:
    lean, model = captured(arch), zoo.blocks(arch, SPAN)
    own, reference = ([part.new_cache(batch, 24) for _length, batch, _new in sessions] for part in (lean, model))
    for seed, (length, batch, _new) in enumerate(sessions):
        lean.forward(inputs(length, batch=batch, seed=seed), own[seed])
        model.forward(inputs(length, batch=batch, seed=seed), reference[seed])
    for turn in range(3):
        counts = [(batch, new if turn else 1) for _length, batch, new in sessions]
        steps = [inputs(new, batch=batch, seed=99 * turn + seed) for seed, (batch, new) in enumerate(counts)]
        outputs = lean.forward_many(list(zip(steps, own, strict=True)))
        for hidden, cache, output in zip(steps, reference, outputs, strict=True):
            assert error(output, model.forward(hidden, cache)) < 2e-5
    assert [cache.length for cache in own] == [cache.length for cache in reference]


@pytest.mark.parametrize("arch", ["llama", "mistral", "gpt2"])
def test_rollback_and_beams_move_what_the_program_wrote(zoo: Zoo, captured: Captured, arch: str) -> None:
    lean, model = captured(arch), zoo.blocks(arch, SPAN)
    own, reference = lean.new_cache(3, 32), model.new_cache(3, 32)

    def both(count: int, seed: int) -> float:
        hidden = inputs(count, batch=3, seed=seed)
        return error(lean.forward(hidden, own), model.forward(hidden, reference))

    errors = [both(9, 0), both(1, 1), both(1, 2), both(1, 3)]
    for cache in (own, reference):
        cache.crop(10)
    errors += [both(1, 4), both(2, 5)]
    for cache in (own, reference):
        cache.reorder([2, 0, 0])
    errors += [both(1, 6), both(1, 7)]
    assert max(errors) <= NOISE[arch]


def test_the_program_takes_all_but_a_first_step(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    part = load_blocks(zoo.checkpoint("llama"), SPAN)
    assert part.capture() is None
    assert part.batches
    calls = spied(part, monkeypatch)
    first, second = part.new_cache(1, 16), part.new_cache(1, 16)
    part.forward_many([(inputs(1), first), (inputs(4), second)])  # they have no memory yet
    assert calls == []
    part.forward(inputs(1), first)
    part.forward_many([(inputs(1), first), (inputs(1), second)])
    part.forward_many([(inputs(1), first), (inputs(2), second)])
    assert calls == [1, 2, 2]


def test_the_program_holds_no_copy_of_a_weight(zoo: Zoo, captured: Captured) -> None:
    part = captured("llama")
    assert part._lean is not None
    own = {tensor.data_ptr() for tensor in (*part.parameters(), *part._base.buffers())}
    assert {tensor.data_ptr() for tensor in part._lean._tensors} <= own
    assert {parameter.data_ptr() for parameter in part.parameters()} <= {t.data_ptr() for t in part._lean._tensors}


def test_a_rotation_that_looks_at_the_farthest_position_is_found_out(tmp_path: Path) -> None:
    part = farthest_position_llama(tmp_path)
    assert part.capture() == "its numbers are others"


class ByRows(nn.Module):
    """A layer that computes few rows another way than many, as layers with kernels of their own do."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        self.of = of

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        output = rows @ self.of.weight.T if len(rows) > 8 else self.of(rows)
        return output.reshape(*hidden.shape[:-1], -1)


class Opaque(nn.Module):
    """A layer that leaves torch."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        self.of = of

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.from_numpy(hidden.detach().numpy() @ self.of.weight.detach().numpy().T)


def with_layers(zoo: Zoo, layer: type[nn.Module]) -> BlockRange:
    part = load_blocks(zoo.checkpoint("llama"), SPAN)
    for block in part._base.layers:
        block.mlp.down_proj = layer(block.mlp.down_proj)
    return part


def warmed(part: BlockRange, count: int) -> list[SpanCache]:
    caches = [part.new_cache(1, 16) for _ in range(count)]
    for seed, cache in enumerate(caches):
        part.forward(inputs(3, seed=seed), cache)
    return caches


def test_layers_with_a_kernel_for_few_rows_are_captured_for_few_rows(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    part = with_layers(zoo, ByRows)
    assert part.capture() is None
    assert part.batches
    calls = spied(part, monkeypatch)
    caches = warmed(part, 9)
    few = part.forward_many([(inputs(1, seed=seed), cache) for seed, cache in enumerate(caches[:8])])
    many = part.forward_many([(inputs(1, seed=seed), cache) for seed, cache in enumerate(warmed(part, 9))])
    assert calls == [8]
    assert max(error(*pair) for pair in zip(few, many, strict=False)) < 2e-5


def test_layers_that_leave_torch_are_found_out(zoo: Zoo) -> None:
    part = with_layers(zoo, Opaque)
    assert part.capture()
    caches = warmed(part, 1)
    assert not torch.equal(part.forward(inputs(1), caches[0]), part.forward(inputs(1, seed=1), caches[0]))


def test_a_session_that_fails_in_the_program_fails_alone_and_the_others_lose_nothing(
    zoo: Zoo, captured: Captured
) -> None:
    part, model = captured("llama"), zoo.blocks("llama", SPAN)
    first, culprit, second = warmed(part, 3)
    culprit.entries.layers[2].keys = torch.zeros(1, 2, 2, 8)  # as if its memory were too short
    expected = [model.forward(inputs(1), cache) for cache in warmed(model, 3)]
    outputs = part.forward_many([(inputs(1), first), (inputs(1), culprit), (inputs(1), second)])
    assert isinstance(outputs[1], RuntimeError)
    assert [error(outputs[0], expected[0]), error(outputs[2], expected[2])] == [0, 0]
    assert (first.length, culprit.length, second.length) == (4, 3, 4)
