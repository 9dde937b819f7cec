"""Steps without Python: a program captured from the decoder serves one session or many in one call.

A trial run (`ragged_trial.py`) says whether it may be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.jit._fuser import optimized_execution

from corolla_core.model.cache import ReservedLayer, SpanCache
from corolla_core.model.lean_program import IMPLEMENTATION, Untraceable, capture
from corolla_core.model.ragged import SDPA, positions_of

_FEW, _MANY = 8, 64
"""Rows that the decoder is traced with. Where it does the same for both, the program is taken for any number of rows,
else (an int8 layer has one kernel for few rows and another for many) up to as many as few."""


class Lean:
    """Runs steps of one or several sessions. `view` is a decoder over the span, made for this alone; `layers` are those
    of any cache of the span. Raises Untraceable, or what the decoder raises where it does not fit."""

    def __init__(self, view: Any, layers: Sequence[Any]) -> None:
        if view.config._attn_implementation != SDPA or not all(isinstance(layer, ReservedLayer) for layer in layers):
            raise Untraceable("its attention is not that of torch over keys and values")
        view.config._attn_implementation = IMPLEMENTATION
        windows = [getattr(layer, "sliding_window", None) for layer in layers]
        few, many = (capture(view, windows, rows=rows) for rows in (_FEW, _MANY))
        self._most = None if few.same_as(many) else _FEW
        self._run, self._tensors = few.compiled(), few.tensors

    def takes(self, steps: Sequence[tuple[Tensor, SpanCache]]) -> bool:
        """Whether these steps are such as the program was captured for."""
        rows = sum(hidden.shape[0] * hidden.shape[1] for hidden, _cache in steps)
        return (self._most is None or rows <= self._most) and all(
            cache.entries.layers[0].is_initialized for _hidden, cache in steps
        )

    def run(self, steps: Sequence[tuple[Tensor, SpanCache]]) -> list[Tensor]:
        """What `Ragged.run` gives, for steps that `takes` takes. When this raises, all caches are as they were."""
        layers = [cache.entries.layers for _hidden, cache in steps]
        shapes = [hidden.shape for hidden, _cache in steps]
        with torch.inference_mode(), optimized_execution(False):
            hidden_1RD = torch.cat([hidden.reshape(1, -1, hidden.shape[2]) for hidden, _cache in steps], dim=1)
            output_1RD = self._run(
                hidden_1RD,
                torch.tensor([positions_of(steps)], device=hidden_1RD.device),
                self._tensors,
                [layer.keys for block in zip(*layers, strict=True) for layer in block],
                [layer.values for block in zip(*layers, strict=True) for layer in block],
                [rows for rows, _tokens, _size in shapes],
                [tokens for _rows, tokens, _size in shapes],
                [own[0].length for own in layers],
            )
            parts = torch.split(output_1RD, [rows * tokens for rows, tokens, _size in shapes], dim=1)
            outputs = [part.reshape(shape).clone() for part, shape in zip(parts, shapes, strict=True)]
        for hidden, cache in steps:
            cache.length += hidden.shape[1]
            for layer in cache.entries.layers:
                layer.length += hidden.shape[1]
        return outputs
