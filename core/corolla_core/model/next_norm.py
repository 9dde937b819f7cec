"""The norm a span's output meets next: errors count by what they do to it, not by the size of a few huge channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corolla_core.model.block_range import view_of
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.partial import Head, base_of, layer_list_name, load_part, tensors_needed
from corolla_core.protocol.span import Span

Norm = Callable[[Tensor], Tensor]
_FINAL = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f", "ln_final", "embedding_norm")
_OF_BLOCK = ("input_layernorm", "ln_1", "self_attn_layer_norm", "ln_attn", "norm", "operator_norm")
_EPSILON = 1e-6


def next_norm(checkpoint: Checkpoint, span: Span) -> Norm:
    """What the block after `span` (after the last: the model) normalises its input by, in float32, [..., D] → the same.

    Where that block has no norm of its input (OLMo 2), plain RMS normalisation. Reads that block, or the head. Raises
    InvalidSpan, WeightsCorrupt, WeightsMissing, UnsupportedModel.
    """
    checkpoint.check_span(span)
    part = Head() if span.end == checkpoint.num_blocks else Span(span.end, span.end + 1)
    tensors = checkpoint.read(tensors_needed(part, checkpoint.config, checkpoint.tensor_names))
    base = base_of(load_part(part, checkpoint.config, tensors, dtype=torch.float32))
    if isinstance(part, Head):
        found = _first(base, _FINAL)
    else:
        block: Any = getattr(view_of(base, part.start, 1), layer_list_name(base))[0]
        found = _first(block, _OF_BLOCK)
    if found is None:
        return rms_norm

    def norm(hidden: Tensor) -> Tensor:
        with torch.inference_mode():
            normed: Tensor = found(hidden.float())
        return normed

    return norm


def rms_norm(hidden: Tensor) -> Tensor:
    """`x / √(mean x² + ε)` over the last dimension, in float32."""
    wide = hidden.float()
    return wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + _EPSILON)


def _first(module: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    """The first of these children that is a norm with weights."""
    for name in names:
        child = getattr(module, name, None)
        if isinstance(child, nn.Module) and next(child.parameters(), None) is not None:
            return child
    return None
