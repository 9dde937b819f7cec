"""Spans with int8 weights: a quarter of the memory, and what their reference computes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
import torch
from model_zoo import BLOCKS, HIDDEN, Zoo
from torch import nn

from corolla_core.model.checkpoint import Checkpoint, Progress
from corolla_core.model.int8_blocks import int8_bytes, load_int8_blocks
from corolla_core.model.int8_linear import KERNEL_ROWS, Int8Linear, quantise_int8, unrounded
from corolla_core.model.manifest import build_manifest
from corolla_core.model.numeric import int8_per_channel, load_reference
from corolla_core.model.source import DirectorySource
from corolla_core.protocol.errors import InvalidSpan, UnsupportedModel, WeightsCorrupt
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span

SPAN = Span(1, BLOCKS)
BF16_STEP = 2**-8
"""The most by which rounding to bfloat16 moves a number, relative to it."""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(11)


@pytest.mark.parametrize(("outputs", "inputs"), [(32, 64), (16, 32), (33, 64), (32, 40), (7, 5)])
@pytest.mark.parametrize("rows", [1, KERNEL_ROWS, KERNEL_ROWS + 1])
def test_a_layer_gives_what_its_dequantised_matrix_gives(outputs: int, inputs: int, rows: int) -> None:
    layer = nn.Linear(inputs, outputs)
    layer.weight.data[0] = 0
    given = torch.randn(2, rows, inputs)[:1]
    wanted = nn.functional.linear(given, int8_per_channel(layer.weight), layer.bias)
    with torch.inference_mode():
        found = Int8Linear(layer)(given)
    assert found.dtype == torch.float32
    assert (found - wanted).norm() <= 2 * BF16_STEP * wanted.norm()


def test_many_rows_are_not_rounded_and_few_are_not_where_that_would_disturb() -> None:
    layer, given = nn.Linear(64, 32), torch.randn(1, KERNEL_ROWS + 1, 64)
    wanted = nn.functional.linear(given, int8_per_channel(layer.weight), layer.bias)
    exactly = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        exactly(Int8Linear(layer)(given), wanted)
        with pytest.raises(AssertionError):
            exactly(Int8Linear(layer)(given[:, :1]), wanted[:, :1])
        with unrounded():
            exactly(Int8Linear(layer)(given[:, :1]), wanted[:, :1])


def test_steps_and_scales_are_the_classs_recipe() -> None:
    weight = torch.randn(6, 200) * torch.tensor([1e-3, 1, 1e3, 0, 1, 1])[:, None]
    steps, scale = quantise_int8(weight)
    assert steps.dtype == torch.int8
    assert steps.abs().amax(dim=1).tolist() == [127, 127, 127, 0, 127, 127]
    assert torch.equal(steps * scale, int8_per_channel(weight))


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma3", "gpt_neox", "bloom", "falcon", "opt", "phi3"])
def test_a_span_computes_what_its_reference_does_alone_and_in_company(zoo: Zoo, arch: str) -> None:
    blocks = load_int8_blocks(zoo.checkpoint(arch), SPAN)
    reference = load_reference(zoo.checkpoint(arch), SPAN, NumericClass.INT8)
    caches = [(blocks.new_cache(2, 24), reference.new_cache(2, 24)) for _ in range(3)]
    hidden = torch.randn(3, 2, 20, HIDDEN).bfloat16().float()
    for start, end in ((0, 12), (12, 13), (13, 20)):
        steps = [(each[:, start:end], cache) for each, (cache, _) in zip(hidden, caches, strict=True)]
        for (given, _), (_, cache), found in zip(steps, caches, blocks.forward_many(steps), strict=True):
            wanted = reference.forward(given, cache)
            assert isinstance(found, torch.Tensor)
            assert (found - wanted).norm() <= 0.01 * wanted.norm()
    assert blocks.kv_bytes(2, 24) == reference.kv_bytes(2, 24)


def test_architectures_that_share_a_pass_in_float32_share_it_in_int8(zoo: Zoo) -> None:
    for arch in ("llama", "mistral", "gemma3", "bloom"):
        assert load_int8_blocks(zoo.checkpoint(arch), SPAN).batches == zoo.blocks(arch, SPAN).batches


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma3", "opt"])
def test_captured_decoding_does_what_the_layers_do(zoo: Zoo, arch: str) -> None:
    blocks, captured = (load_int8_blocks(zoo.checkpoint(arch), SPAN) for _ in range(2))
    assert captured.capture() is None
    for rows in (1, KERNEL_ROWS, KERNEL_ROWS + 1):
        hidden, caches = torch.randn(rows, 4, HIDDEN), [each.new_cache(rows, 4) for each in (blocks, captured)]
        for at in range(4):
            step = hidden[:, at : at + 1]
            torch.testing.assert_close(captured.forward(step, caches[1]), blocks.forward(step, caches[0]))


def test_a_part_of_a_span_shares_its_weights(zoo: Zoo) -> None:
    blocks = load_int8_blocks(zoo.checkpoint("llama"), SPAN)
    part, alone = blocks.sub(Span(2, 3)), load_int8_blocks(zoo.checkpoint("llama"), Span(2, 3))
    hidden = torch.randn(1, 5, HIDDEN)
    outputs = [each.forward(hidden, each.new_cache(1, 5)) for each in (part, alone)]
    assert torch.equal(*outputs)
    assert {id(held) for held in part.parameters()} <= {id(held) for held in blocks.parameters()}


def test_weights_take_a_quarter_of_float32s_memory(zoo: Zoo) -> None:
    shapes = [tuple(held.shape) for held in zoo.blocks("llama", SPAN).parameters()]
    blocks = load_int8_blocks(zoo.checkpoint("llama"), SPAN)
    beside = sum(held.nbytes for held in zoo.blocks("llama", SPAN)._base.buffers())
    assert blocks.weight_bytes == sum(map(int8_bytes, shapes)) + beside
    assert int8_bytes((2048, 2048)) < 2048 * 2048 * 4 * 0.251


class Noting(Checkpoint):
    """Keeps which blocks each read was of."""

    def __init__(self, folder: Path) -> None:
        super().__init__(DirectorySource(folder))
        self.asked: list[set[str]] = []

    def read(self, names: Iterable[str], *, progress: Progress | None = None) -> dict[str, torch.Tensor]:
        self.asked.append({name.split(".")[2] for name in names})
        return super().read(names, progress=progress)


@pytest.mark.parametrize(
    ("blocks_at_once", "groups"), [(0, [{"1"}, {"2"}, {"3"}]), (2, [{"1", "2"}, {"3"}]), (9, [{"1", "2", "3"}])]
)
def test_a_span_is_read_in_groups_and_progress_covers_all(
    zoo: Zoo, blocks_at_once: int, groups: list[set[str]]
) -> None:
    checkpoint, seen = Noting(zoo.folder("llama")), list[tuple[int, int]]()
    block = sum(held.nbytes for held in zoo.blocks("llama", Span(1, 2)).parameters())
    blocks = load_int8_blocks(
        checkpoint, SPAN, at_once=block * blocks_at_once, progress=lambda done, total: seen.append((done, total))
    )
    assert checkpoint.asked == groups
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {seen[-1][0]}

    reference, hidden = load_reference(checkpoint, SPAN, NumericClass.INT8), torch.randn(1, 12, HIDDEN)
    torch.testing.assert_close(
        blocks.forward(hidden, blocks.new_cache(1, 12)), reference.forward(hidden, reference.new_cache(1, 12))
    )


@pytest.mark.parametrize("arch", ["gpt2", "qwen3_moe", "gpt_oss"])
def test_matrices_outside_linear_layers_are_refused_by_name(zoo: Zoo, arch: str) -> None:
    with pytest.raises(UnsupportedModel, match="is no linear layer's"):
        load_int8_blocks(zoo.checkpoint(arch), SPAN)


def test_the_manifest_is_checked_and_the_span_too(zoo: Zoo) -> None:
    checkpoint = zoo.checkpoint("llama")
    load_int8_blocks(checkpoint, SPAN, manifest=build_manifest(checkpoint))
    with pytest.raises(WeightsCorrupt):
        load_int8_blocks(checkpoint, SPAN, manifest=build_manifest(zoo.checkpoint("qwen3")))
    with pytest.raises(InvalidSpan):
        load_int8_blocks(checkpoint, Span(BLOCKS - 1, BLOCKS + 1))


def test_a_matrix_of_several_tiles_is_multiplied_whole() -> None:
    layer, given = nn.Linear(2048, 600), torch.randn(KERNEL_ROWS + 1, 2048)
    wanted = nn.functional.linear(given, int8_per_channel(layer.weight), layer.bias)
    with torch.inference_mode():
        torch.testing.assert_close(Int8Linear(layer)(given), wanted, rtol=1e-4, atol=1e-5)
