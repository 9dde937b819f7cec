"""What a node's declared arithmetic means for its weights: how it holds them, and the reference it is judged by.

A class fixes the weights bit by bit: rounded to the dtype it computes in, NF4 first quantised and dequantised; int8
keeps its steps and scales, and their products are not rounded.
The reference takes those very weights and computes in float32, so that all it may differ by is the arithmetic between.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.int8_blocks import load_int8_blocks
from corolla_core.model.int8_linear import quantise_int8
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span

#: what a node of each class takes activations in; on a CPU tf32 is float32
COMPUTE_DTYPES = {
    NumericClass.FP32: torch.float32,
    NumericClass.TF32: torch.float32,
    NumericClass.FP16: torch.float16,
    NumericClass.BF16: torch.bfloat16,
    NumericClass.INT8: torch.bfloat16,
    NumericClass.NF4: torch.bfloat16,
}
NF4_BLOCK = 64
#: The 16 values of NF4, from https://arxiv.org/abs/2305.14314, appendix E: quantiles of a standard normal in [-1, 1]
NF4_CODE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def int8_per_channel(weight: Tensor) -> Tensor:
    """A matrix as int8 would hold it, dequantised, in float32: each row (output channel, in the layout of nn.Linear)
    has the scale absmax / 127, and numbers are rounded half to even. Vectors (norms, biases) stay as they are."""
    if weight.ndim < 2:
        return weight
    steps, scale = quantise_int8(weight)
    return steps * scale


def nf4(weight: Tensor) -> Tensor:
    """A matrix as NF4 would hold it, dequantised, in float32: each run of 64 numbers in memory is divided by its absmax
    (kept in float32: no double quantisation) and takes the nearest of the 16 codes. Vectors stay as they are."""
    if weight.ndim < 2:
        return weight
    flat = weight.float().reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % NF4_BLOCK)).reshape(-1, NF4_BLOCK)
    absmax = padded.abs().amax(dim=1, keepdim=True)
    code = torch.tensor(NF4_CODE)
    middles = (code[1:] + code[:-1]) / 2
    nearest = code[torch.bucketize(torch.where(absmax > 0, padded / absmax, 0.0), middles)]
    return (nearest * absmax).reshape(-1)[: flat.numel()].reshape(weight.shape)


def held_as(numeric_class: NumericClass) -> Callable[[Tensor], Tensor]:
    """What a tensor of a checkpoint is worth at a node of this class, in a dtype that loses nothing of it."""
    dtype = COMPUTE_DTYPES[numeric_class]

    def hold(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        if numeric_class is NumericClass.INT8 and tensor.ndim > 1:
            return int8_per_channel(tensor)
        return (nf4(tensor) if numeric_class is NumericClass.NF4 else tensor).to(dtype)

    return hold


def load_served(
    checkpoint: Checkpoint, span: Span, numeric_class: NumericClass, *, manifest: Manifest | None = None
) -> BlockRange:
    """The blocks as an honest node of this class serves them. Raises what `load_blocks` does."""
    if numeric_class is NumericClass.INT8:
        return load_int8_blocks(checkpoint, span, manifest=manifest)
    dtype = COMPUTE_DTYPES[numeric_class]
    return load_blocks(checkpoint, span, dtype=dtype, manifest=manifest, transform=held_as(numeric_class))


def load_reference(
    checkpoint: Checkpoint, span: Span, numeric_class: NumericClass, *, manifest: Manifest | None = None
) -> BlockRange:
    """The same weights in float32, to recompute with. Raises what `load_blocks` does."""
    hold = held_as(numeric_class)

    def widened(tensor: Tensor) -> Tensor:
        held = hold(tensor)
        return held.float() if held.is_floating_point() else held

    return load_blocks(checkpoint, span, dtype=torch.float32, manifest=manifest, transform=widened)
