"""Several sessions' steps in one pass over a span: what is done to each position by itself (norms, projections, MLP,
experts) is done once to the rows of all, and each session attends to its own keys and values.

The rows of all steps form one sequence, `[1, R, D]`, R rows in all: row-major for a session of several rows. The model
is a transformers decoder whose attention is `IMPLEMENTATION`, registered here. It has no mask of its own, so that
transformers makes none, and it hands each session's part to the attention the model would have used.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from corolla_core.model.cache import SpanCache

IMPLEMENTATION = "corolla_ragged"
SDPA = "sdpa"
UNDERSTOOD = {"dropout", "scaling", "sliding_window", "position_ids", "use_cache"}
"""What the attention of a single position may be told without being more than `scaled_dot_product_attention`: nothing
is dropped outside training, and a cache shows no more than its window."""


@dataclass(slots=True)
class _Pass:
    """What the attention of each block needs to know of the steps that are computed together."""

    caches: Sequence[SpanCache]
    tokens: Sequence[int]
    rows: list[int]
    kind: str
    masks: dict[tuple[int, int, int | None, bool], Tensor | None] = field(default_factory=dict)

    def mask(self, query: Tensor, seen: int, window: int | None) -> Tensor | None:
        """Which of `seen` keys each of the last T positions attends to: `[1, 1, T, seen]`, as the model's attention
        wants it; None where that is all of them, or where causality is what the attention does by itself."""
        tokens = query.shape[2]
        causal = tokens == seen and (window is None or seen <= window)
        if tokens == 1 or (causal and self.kind == SDPA):
            return None
        key = (tokens, seen, window, causal)
        if key not in self.masks:
            self.masks[key] = self._made(tokens, seen, window, query)
        return self.masks[key]

    def _made(self, tokens: int, seen: int, window: int | None, query: Tensor) -> Tensor:
        own = torch.arange(seen - tokens, seen, device=query.device).unsqueeze(1)
        other = torch.arange(seen, device=query.device).unsqueeze(0)
        visible = other <= own
        if window is not None:
            visible &= other > own - window
        if self.kind != SDPA:
            visible = torch.where(visible, 0.0, torch.finfo(query.dtype).min).to(query.dtype)
        return visible[None, None]


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, ragged: _Pass, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query `[1, H, R, W]`, key and value `[1, K, R, W]` of all new rows; gives
    `[1, R, H, W]`."""
    attention = _of_model(module, ragged.kind)
    direct = ragged.kind == SDPA and options.keys() <= UNDERSTOOD
    split = [torch.split(part, ragged.rows, dim=2) for part in (query, key, value)]
    outputs = []
    for cache, tokens, own_query, own_key, own_value in zip(ragged.caches, ragged.tokens, *split, strict=True):
        layer = cache.entries.layers[module.layer_idx]
        if tokens == cache.batch == 1 and direct:
            keys, values = layer.update(own_key, own_value)
            output = scaled_dot_product_attention(
                own_query, keys, values, scale=options.get("scaling"), enable_gqa=True
            )
            outputs.append(output.transpose(1, 2))
            continue
        if cache.batch > 1:
            own_query, own_key, own_value = (_by_row(part, tokens) for part in (own_query, own_key, own_value))
        keys, values = layer.update(own_key, own_value)
        window = getattr(layer, "sliding_window", None)
        mask = ragged.mask(own_query, keys.shape[2], window)
        output, _weights = attention(module, own_query, keys, values, mask, **options)
        outputs.append(output.reshape(1, -1, *output.shape[2:]))
    return torch.cat(outputs, dim=1), None


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _attend)


def _by_row(part_1HRW: Tensor, tokens: int) -> Tensor:
    """A session's part of the ragged sequence as `[B, H, T, W]`."""
    _one, heads, _rows, width = part_1HRW.shape
    return part_1HRW[0].reshape(heads, -1, tokens, width).transpose(0, 1)


def _of_model(module: Any, kind: str) -> Callable[..., tuple[Tensor, Any]]:
    """The attention this module would use; the eager one stands beside it in its file."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    attention: Callable[..., tuple[Tensor, Any]] = ALL_ATTENTION_FUNCTIONS.get_interface(kind, eager)
    return attention


class Ragged:
    """Runs steps of several sessions together. `view` is a decoder over the span, made for this alone."""

    def __init__(self, view: Any) -> None:
        self._kind = str(view.config._attn_implementation)
        view.config._attn_implementation = IMPLEMENTATION
        self._view = view
        self._forward = inspect.unwrap(type(view).forward)

    def run(self, steps: Sequence[tuple[Tensor, SpanCache]]) -> list[Tensor]:
        """The output of each step, as `BlockRange.forward` gives it; hidden states come in the model's own dtype, on
        its device. When this raises, some step or the model is at fault, and all caches are as they were."""
        caches = [cache for _hidden, cache in steps]
        held = [[layer.length for layer in cache.entries.layers] for cache in caches]
        rows = [hidden.shape[0] * hidden.shape[1] for hidden, _cache in steps]
        try:
            with torch.inference_mode():
                hidden_1RD = torch.cat([hidden.reshape(1, -1, hidden.shape[2]) for hidden, _cache in steps], dim=1)
                output_1RD = self._forward(
                    self._view,
                    inputs_embeds=hidden_1RD,
                    position_ids=torch.tensor([positions_of(steps)], device=hidden_1RD.device),
                    use_cache=False,
                    ragged=_Pass(caches, [hidden.shape[1] for hidden, _cache in steps], rows, self._kind),
                )[0]
                # copies: a session that keeps its rows must not keep everyone's
                parts = zip(torch.split(output_1RD, rows, dim=1), steps, strict=True)
                outputs = [part.reshape(hidden.shape).clone() for part, (hidden, _cache) in parts]
        except Exception:
            for cache, lengths in zip(caches, held, strict=True):
                for layer, length in zip(cache.entries.layers, lengths, strict=True):
                    layer.length = length
            raise
        for hidden, cache in steps:
            cache.length += hidden.shape[1]
        return outputs


def positions_of(steps: Sequence[tuple[Tensor, SpanCache]]) -> list[int]:
    """Where each row of the ragged sequence stands in its own."""
    positions: list[int] = []
    for hidden, cache in steps:
        positions += [*range(cache.length, cache.length + hidden.shape[1])] * cache.batch
    return positions
