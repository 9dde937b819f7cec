"""Whether a span computes sessions another way as the model itself does: found by doing both.

No list of architectures could say it. What a pass gets wrong where it does not fit (a state that is no list of keys,
attention that is not the registered one, masks of another kind, a rotation that looks at the farthest position of all)
shows in steps over made-up histories, which cost no more than a few tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from corolla_core.model.cache import ReservedLayer, SpanCache
from corolla_core.model.int8_linear import unrounded

Step = tuple[Tensor, SpanCache]

WINDOW = 8192
"""The widest sliding window that is tried: histories reach beyond it. A span with a wider one is not batched."""
_TOLERANCE = {torch.float16: 3e-2, torch.bfloat16: 3e-2}
"""Relative error of a position's hidden state; 1e-4 for wider types. Rounding stays far below either."""
ROUNDS = 3
"""How many steps a session does in a trial of what it leaves behind."""


def can_batch(
    alone: Callable[[Tensor, SpanCache], Tensor],
    together: Callable[[Sequence[Step]], list[Tensor]],
    new_cache: Callable[[int, int], SpanCache],
    *,
    like: Any,
) -> bool:
    """Try it: `alone` computes a step, `together` several; `like` is the decoder over the span. A few tokens' work."""
    with torch.inference_mode(), unrounded():
        scratch = _scratch(alone, new_cache, like)
        layers = scratch.entries.layers
        if not all(isinstance(layer, ReservedLayer) for layer in layers) or max(_windows(scratch), default=0) > WINDOW:
            return False
        try:
            expected = [alone(*step) for step in _steps(new_cache, scratch, like)]
            outputs = together(_steps(new_cache, scratch, like))
        except Exception:  # whatever the architecture does not take
            return False
        return all(_close(output, wanted) for output, wanted in zip(outputs, expected, strict=True))


def can_continue(
    alone: Callable[[Tensor, SpanCache], Tensor],
    together: Callable[[Sequence[Step]], list[Tensor]],
    new_cache: Callable[[int, int], SpanCache],
    *,
    like: Any,
) -> bool:
    """The same for each alone as well as all together, and for tokens decoded after those steps, since what one leaves
    in the caches is what the next one finds there. Raises whatever `together` does."""
    with torch.inference_mode():
        scratch = _scratch(alone, new_cache, like)
        if max(_windows(scratch), default=0) > WINDOW:
            return False
        expected, single, joint = (_steps(new_cache, scratch, like, after=ROUNDS - 1) for _ in range(3))
        for _ in range(ROUNDS):
            wanted = [alone(*step) for step in expected]
            outputs = [output for step in single for output in together([step])], together(joint)
            if not all(_close(*pair) for own in outputs for pair in zip(own, wanted, strict=True)):
                return False
            expected, single, joint = (
                [(output[:, -1:], cache) for output, (_hidden, cache) in zip(wanted, steps, strict=True)]
                for steps in (expected, single, joint)
            )
        return True


def _scratch(
    alone: Callable[[Tensor, SpanCache], Tensor], new_cache: Callable[[int, int], SpanCache], like: Any
) -> SpanCache:
    """A cache that shows what the span's caches are like."""
    first = next(like.parameters())
    scratch = new_cache(1, 1)
    alone(torch.zeros(1, 1, like.config.hidden_size, dtype=first.dtype, device=first.device), scratch)
    return scratch


def _windows(scratch: SpanCache) -> list[int]:
    return [layer.sliding_window for layer in scratch.entries.layers if getattr(layer, "is_sliding", False)]


def _steps(new_cache: Callable[[int, int], SpanCache], scratch: SpanCache, like: Any, *, after: int = 0) -> list[Step]:
    """The same steps each time: (rows, positions held, where these are, tokens), with room for some after."""
    beyond = max(_windows(scratch), default=8) + 1
    far = 2 * int(getattr(like.config, "max_position_embeddings", 2**16))
    plans = [(2, 0, 0, 3), (1, 5, 5, 1), (1, beyond, beyond, 3), (1, beyond, beyond, 1), (2, 6, 6, 2), (1, 7, far, 1)]
    dice = torch.Generator().manual_seed(0)
    steps = []
    for rows, held, start, tokens in plans:
        cache = new_cache(rows, held + tokens + after)
        for layer, seen in zip(cache.entries.layers, scratch.entries.layers, strict=True):
            layer.lazy_initialization(*(each.expand(rows, -1, -1, -1) for each in (seen.keys, seen.values)))
            for past in (layer.keys, layer.values):
                past[:, :, :held] = torch.randn(past[:, :, :held].shape, generator=dice).to(past)
            layer.length = held
        cache.length = start
        hidden = torch.randn(rows, tokens, like.config.hidden_size, generator=dice)
        steps.append((hidden.to(scratch.entries.layers[0].keys), cache))
    return steps


def _close(output: Tensor, expected: Tensor) -> bool:
    errors = (output.float() - expected.float()).norm(dim=-1) / expected.float().norm(dim=-1)
    return bool((errors <= _TOLERANCE.get(expected.dtype, 1e-4)).all())
