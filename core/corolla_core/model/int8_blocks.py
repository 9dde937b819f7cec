"""Loading a span with int8 weights, a few blocks at a time: no more than these are ever in memory as floats."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from corolla_core.model.block_range import BlockRange, range_over, read_blocks
from corolla_core.model.checkpoint import Checkpoint, Progress
from corolla_core.model.int8_linear import hold_as_int8
from corolla_core.model.manifest import Manifest
from corolla_core.model.partial import base_of, layer_list_name, tensors_by_block
from corolla_core.protocol.errors import UnsupportedModel
from corolla_core.protocol.span import Span

AT_ONCE = 256 * 2**20


def load_int8_blocks(
    checkpoint: Checkpoint,
    span: Span,
    *,
    manifest: Manifest | None = None,
    progress: Progress | None = None,
    at_once: int = AT_ONCE,
) -> BlockRange:
    """The blocks of `span` as the class int8 has them, on the CPU, read in groups of at most `at_once` bytes of the
    checkpoint (or one block). Raises what `load_blocks` does; UnsupportedModel, too, where a matrix belongs to no
    linear layer."""
    checkpoint.check_span(span)
    by_block = tensors_by_block(span, checkpoint.config, checkpoint.tensor_names)
    sizes = {block: sum(checkpoint.entry(name).nbytes for name in names) for block, names in by_block.items()}
    total, done = sum(sizes.values()), 0
    whole: Any = None
    for group in _groups(sizes, at_once):

        def report(read: int, _of: int, before: int = done) -> None:
            if progress is not None:
                progress(before + read, total)

        base = base_of(read_blocks(checkpoint, group, manifest=manifest, progress=report, transform=_vectors_rounded))
        for block in group.blocks():
            unfit = hold_as_int8(getattr(base, layer_list_name(base))[block])
            if unfit is not None:
                raise UnsupportedModel(f"{checkpoint.name}: {unfit} is no linear layer's, and cannot be held as int8")
            if whole is not None:
                _adopt(whole, base, block)
            done += sizes[block]
        whole = whole or base
    return range_over(whole, span, checkpoint.name)


def int8_bytes(shape: tuple[int, ...]) -> int:
    """What a tensor of this shape takes: a matrix a byte a number and for each row a scale in float32 and a one in
    bfloat16, a vector float32."""
    return prod(shape) + (4 + 2) * prod(shape[:-1]) if len(shape) > 1 else 4 * prod(shape)


def _groups(sizes: dict[int, int], at_once: int) -> list[Span]:
    """Consecutive blocks (given in order, with their bytes) in spans of at most so many bytes, or one block."""
    groups: list[Span] = []
    room = 0
    for block, size in sizes.items():
        if groups and size <= room:
            groups[-1] = Span(groups[-1].start, block + 1)
        else:
            groups.append(Span(block, block + 1))
            room = at_once
        room -= size
    return groups


def _vectors_rounded(tensor: Tensor) -> Tensor:
    """Matrices go to their layers as stored."""
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() and tensor.ndim < 2 else tensor


def _adopt(whole: Any, base: Any, block: int) -> None:
    """Move a block from the decoder it was loaded with to another of the same config."""
    layer = getattr(base, layer_list_name(base))[block]
    for module in layer.modules():
        if getattr(module, "config", None) is base.config:
            module.config = whole.config
    getattr(whole, layer_list_name(whole))[block] = layer
