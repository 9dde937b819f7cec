"""What a dishonest node may do with a span's inputs instead of the work it is paid for.

Each cheat is a function of a `Stage` and a session's inputs [B, T, D] to the outputs [B, T, D] it claims, in float32,
not yet rounded for the wire. All but the cheat itself is honest arithmetic of the class the node declares.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from corolla_core.model.audited_span import AuditedSpan, spliced
from corolla_core.model.block_range import BlockRange
from corolla_core.model.cache import ReservedLayer, ReservedWindowLayer, SpanCache
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.numeric import load_served
from corolla_core.model.replay import run
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span

CHUNK = 16
WINDOW = 32
"""Positions the cheat with an attention window still looks at, at least."""


@dataclass
class Stage:
    """A node with `honest` blocks of `span` that declares `numeric_class`; `audited` is what it will be judged
    by, which the poisoner is given too: it knows the protocol and the thresholds. `w16` is the limit to stay under."""

    checkpoint: Checkpoint
    span: Span
    numeric_class: NumericClass
    honest: BlockRange
    audited: AuditedSpan
    w16: float
    _cheaper: dict[NumericClass, BlockRange] = field(default_factory=dict)

    @property
    def middle(self) -> int:
        return (self.span.start + self.span.end) // 2

    def computed(self, hidden_BTD: Tensor, *parts: BlockRange) -> Tensor:
        for part in parts:
            hidden_BTD = run(part, hidden_BTD, chunk=CHUNK)
        return hidden_BTD

    def cheaper(self, numeric_class: NumericClass) -> BlockRange:
        """The span's blocks as a node of another class holds them."""
        if numeric_class not in self._cheaper:
            self._cheaper[numeric_class] = load_served(self.checkpoint, self.span, numeric_class)
        return self._cheaper[numeric_class]


Cheat = Callable[[Stage, Tensor], Tensor]


def nothing(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """No cheat at all."""
    return stage.computed(inputs_BTD, stage.honest)


def skip_layer(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Leaves the middle block out."""
    first, last = Span(stage.span.start, stage.middle), Span(stage.middle + 1, stage.span.end)
    return stage.computed(inputs_BTD, stage.honest.sub(first), stage.honest.sub(last))


def early_exit(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Stops after half of the blocks."""
    return stage.computed(inputs_BTD, stage.honest.sub(Span(stage.span.start, stage.middle)))


def identity(_stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Hands on what it was given."""
    return inputs_BTD.float()


def wrong_weights(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Runs the blocks of another span of the same model."""
    size = len(stage.span)
    start = stage.span.start - size if stage.span.start >= size else stage.span.end
    other = Span(start, min(start + size, stage.checkpoint.num_blocks))
    return stage.computed(inputs_BTD, load_served(stage.checkpoint, other, stage.numeric_class))


def int8(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Weights in int8 per channel, computing in bfloat16."""
    return stage.computed(inputs_BTD, stage.cheaper(NumericClass.INT8))


def nf4(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Weights in NF4, computing in bfloat16."""
    return stage.computed(inputs_BTD, stage.cheaper(NumericClass.NF4))


def bf16(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Weights and arithmetic in bfloat16."""
    return stage.computed(inputs_BTD, stage.cheaper(NumericClass.BF16))


def int8_one_layer(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """int8 in the middle block only."""
    return stage.computed(inputs_BTD, *spliced(stage.honest, stage.cheaper(NumericClass.INT8), stage.middle))


def nf4_one_layer(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """NF4 in the middle block only."""
    return stage.computed(inputs_BTD, *spliced(stage.honest, stage.cheaper(NumericClass.NF4), stage.middle))


def int8_kv(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Keeps keys and values in int8, a scale for each head and position."""
    return _with_cache(stage.honest, inputs_BTD, lambda tokens: _Int8Layer(tokens), chunk=CHUNK)


def attention_window(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Forgets all but the last few positions."""
    return _with_cache(stage.honest, inputs_BTD, lambda tokens: ReservedWindowLayer(tokens, WINDOW), chunk=CHUNK)


def stale_kv(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Computes the second half of a session on keys and values left over from another one's first half."""
    half = inputs_BTD.shape[1] // 2
    other = inputs_BTD[:, :half].flip(dims=(1,))
    first = stage.computed(inputs_BTD[:, :half], stage.honest)
    return torch.cat([first, stage.computed(torch.cat([other, inputs_BTD[:, half:]], 1), stage.honest)[:, half:]], 1)


def copied_output(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Answers with what it put out for other inputs."""
    return stage.computed(inputs_BTD.flip(dims=(1,)), stage.honest)


def noise(stage: Stage, inputs_BTD: Tensor) -> Tensor:
    """Honest work with 1 % of noise on every number."""
    honest = stage.computed(inputs_BTD, stage.honest)
    return honest * (1 + 0.01 * torch.randn(honest.shape, generator=torch.Generator().manual_seed(1)))


def poison(stage: Stage, inputs_BTD: Tensor, *, steps: int = 5, share: float = 0.8) -> Tensor:
    """Honest work moved, within `share` of w16's limit at every position, so that the model becomes least likely to say
    what it would have said: projected gradient descent through all that follows, on the norm's own scale."""
    assert stage.audited.measure.downstream is not None, "a poisoner needs to know what follows"
    downstream, norm = stage.audited.measure.downstream, stage.audited.measure.norm
    honest = stage.audited.replay(inputs_BTD).clone()
    base = norm(honest).clone()
    said = downstream.log_probs(downstream.final(honest)).argmax(dim=-1)
    moved = honest.clone()
    for _ in range(steps):
        at = moved.detach().clone().requires_grad_()
        loss = torch.nn.functional.nll_loss(_log_probs(downstream, at).flatten(0, 1), said.clone().flatten())
        (slope,) = torch.autograd.grad(loss, at)
        reach = share * stage.w16 * honest.norm(dim=-1, keepdim=True)
        moved = moved + reach / 3 * slope / slope.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        # back inside: the error's size after the norm is what will be judged
        error = (norm(moved) - base).norm(dim=-1, keepdim=True) / base.norm(dim=-1, keepdim=True)
        moved = honest + (moved - honest) * (share * stage.w16 / error).clamp(max=1)
    return moved.detach()


CHEATS: dict[str, Cheat] = {
    "skip one block": skip_layer,
    "early exit": early_exit,
    "identity": identity,
    "wrong weights": wrong_weights,
    "stale KV": stale_kv,
    "copied output": copied_output,
    "attention window": attention_window,
    "NF4": nf4,
    "NF4 on one block": nf4_one_layer,
    "int8 per channel": int8,
    "int8 on one block": int8_one_layer,
    "int8 KV": int8_kv,
    "1 % noise": noise,
    "poison (PGD)": poison,
}


class _Int8Layer(ReservedLayer):
    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return super().update(_int8_rows(key_states), _int8_rows(value_states), *args, **kwargs)


def _int8_rows(states: Tensor) -> Tensor:
    scale = states.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
    return ((states.float() / scale).round() * scale).to(states.dtype)


def _with_cache(blocks: BlockRange, inputs_BTD: Tensor, layer: Callable[[int], Any], *, chunk: int) -> Tensor:
    batch, length, _hidden = inputs_BTD.shape
    cache = SpanCache(blocks.config, blocks.span, batch=batch, max_tokens=length)
    cache.entries.layers = [layer(length) for _ in cache.entries.layers]
    parts = [blocks.forward(inputs_BTD[:, at : at + chunk], cache) for at in range(0, length, chunk)]
    return torch.cat(parts, dim=1).float()


def _log_probs(downstream: Any, hidden_BTD: Tensor) -> Tensor:
    """What `Downstream.log_probs` gives, with gradients."""
    rest = downstream.rest
    if rest is not None:
        positions = torch.arange(hidden_BTD.shape[1]).unsqueeze(0)
        hidden_BTD = rest._forward(hidden_BTD, positions, DynamicCache(config=rest.config))
    logits = downstream.head._model(inputs_embeds=hidden_BTD, use_cache=False).logits
    return torch.log_softmax(logits.float(), dim=-1)
