"""The statistics a claim is judged by (protocol.md section 3), from tensors: `protocol.verdict` decides on them.

Every one is taken over windows of 16 positions and the worst window counts, so that a liar gains nothing by cheating
only here and there. Position 0 is never judged: most models put a massive activation there, whose rounding says nothing
about the work done. Legend: B rows, T tokens, K claimed rows, D hidden size, V vocabulary, W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from corolla_core.model.block_range import BlockRange
from corolla_core.model.head import Head
from corolla_core.model.next_norm import Norm
from corolla_core.model.replay import run
from corolla_core.model.tensors import is_finite, over_wire
from corolla_core.protocol.errors import InvalidInput, TensorRejected
from corolla_core.protocol.reordering import Reordering
from corolla_core.protocol.verdict import WINDOW, Statistics

Recomputation = Callable[[Tensor, Sequence[Reordering]], Tensor]
"""From a session's inputs [B, T, D] and how its sequences were reordered to the outputs [B, T, D] of a span, in
float32."""
_AT_ONCE = 256
"""Positions whose logits are held at once: a vocabulary is large."""
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Downstream:
    """What comes after the span, in float32: the remaining blocks (None after the last) and the head."""

    rest: BlockRange | None
    head: Head

    def final(self, hidden_BTD: Tensor, reorderings: Sequence[Reordering] = ()) -> Tensor:
        """What the last block makes of the span's outputs, [B, T, D]."""
        return hidden_BTD if self.rest is None else run(self.rest, hidden_BTD, reorderings)

    def log_probs(self, final_BTD: Tensor) -> Tensor:
        """Log probabilities [B, T, V] of the next token."""
        log_probs: Tensor = torch.log_softmax(self.head.logits(final_BTD).float(), dim=-1)
        return log_probs


@dataclass(frozen=True, slots=True)
class Windows:
    """Each statistic in each window, [B, W]."""

    positions: int
    w16: Tensor
    alphas: Mapping[str, Tensor]
    mismatch: Tensor | None
    kl: Tensor | None

    def worst(self) -> Statistics:
        return Statistics(
            self.positions,
            float(self.w16.max()),
            tuple((name, float(alpha.max())) for name, alpha in sorted(self.alphas.items())),
            None if self.mismatch is None else float(self.mismatch.max()),
            None if self.kl is None else float(self.kl.max()),
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """How claims about one span are measured.

    `cheats` are known ones by name, which the validator runs itself; `exact_wire` names the wire dtype on which
    elements must match (float32 arithmetic over a narrower wire); `downstream` is None where KL is not wanted: there a
    row that was only made longer or shorter, of which the norm says nothing, counts as off by that part. Over int8,
    whose own error would hide what is looked for, a claim is compared with what the replay becomes on that wire.
    """

    norm: Norm
    cheats: Mapping[str, Recomputation] = field(default_factory=dict)
    exact_wire: str | None = None
    wire: str = "float32"
    downstream: Downstream | None = None

    def statistics(
        self,
        inputs_BTD: Tensor,
        replayed_BTD: Tensor,
        claimed_BKD: Tensor,
        reorderings: Sequence[Reordering] = (),
        *,
        first: int = 0,
    ) -> Statistics:
        """Compare K claimed output rows, from position `first` on, with the replay of the whole session up to them.

        Raises TensorRejected when the shapes do not fit each other. A claim that is not finite has infinite
        statistics and so fails: its node signed for it.
        """
        honest_BKD = _opened(inputs_BTD, replayed_BTD, claimed_BKD, first)
        positions = honest_BKD.shape[1] - (first == 0)
        if not is_finite(claimed_BKD):
            return Statistics(positions, _NEVER)
        if positions == 0:
            return Statistics(0, 0.0)
        return self.windows(inputs_BTD, replayed_BTD, claimed_BKD, reorderings, first=first).worst()

    def windows(
        self,
        inputs_BTD: Tensor,
        replayed_BTD: Tensor,
        claimed_BKD: Tensor,
        reorderings: Sequence[Reordering] = (),
        *,
        first: int = 0,
    ) -> Windows:
        """The same by window, for finite claims of more than position 0. Raises TensorRejected."""
        replayed_BTD = self._sent(replayed_BTD)
        honest_BKD = _opened(inputs_BTD, replayed_BTD, claimed_BKD, first)
        upto, judged = first + claimed_BKD.shape[1], slice(first == 0, None)
        claim, honest = claimed_BKD[:, judged], honest_BKD[:, judged]
        base = self.norm(honest)
        error = self.norm(claim) - base
        off = error.norm(dim=-1) / base.norm(dim=-1)
        if self.downstream is None:
            off = torch.maximum(off, rescaled(claim, honest))
        deviations = {
            name: self.norm(self._sent(cheat(inputs_BTD[:, :upto], reorderings)[:, first:][:, judged])) - base
            for name, cheat in self.cheats.items()
        }
        return Windows(
            honest.shape[1],
            window_means(off),
            {name: matched(error, deviation) for name, deviation in deviations.items()},
            None if self.exact_wire is None else window_means(mismatches(claim, honest, self.exact_wire)),
            None if self.downstream is None else self._kl(replayed_BTD[:, :upto], claimed_BKD, reorderings, first),
        )

    def _sent(self, hidden_BTD: Tensor) -> Tensor:
        return over_wire(hidden_BTD, self.wire) if self.wire == "int8" else hidden_BTD

    def _kl(self, replayed_BTD: Tensor, claimed_BKD: Tensor, reorderings: Sequence[Reordering], first: int) -> Tensor:
        assert self.downstream is not None
        mixed_BTD = torch.cat([replayed_BTD[:, :first], claimed_BKD.float()], dim=1)
        honest, claimed = (
            self.downstream.final(hidden, reorderings)[:, max(first, 1) :] for hidden in (replayed_BTD, mixed_BTD)
        )
        parts = [
            kl(self.downstream.log_probs(of_honest), self.downstream.log_probs(of_claimed))
            for of_honest, of_claimed in zip(_split(honest), _split(claimed), strict=True)
        ]
        return window_means(torch.cat(parts, dim=1).reshape(honest.shape[:2]))


def window_means(values_BT: Tensor) -> Tensor:
    """Means over consecutive windows of `WINDOW` positions, [B, T] → [B, W]. The last one ends at the last position,
    overlapping the one before it, so that every position counts; fewer positions than a window are one window."""
    length = values_BT.shape[-1]
    return torch.stack([values_BT[..., at : at + WINDOW].mean(dim=-1) for at in _starts(length)], dim=-1)


def rescaled(claimed: Tensor, honest: Tensor) -> Tensor:
    """By what part each row is longer or shorter than the honest one, [..., D] → [...]: the norm that comes next
    divides that out, and yet it says how much of a change what later blocks add to the row is."""
    by: Tensor = claimed.float().norm(dim=-1) / honest.float().norm(dim=-1) - 1
    return by.abs()


def matched(error_BTD: Tensor, deviation_BTD: Tensor) -> Tensor:
    """The matched filter `α = ⟨e, d⟩ / ⟨d, d⟩` in each window, [B, W]: 1 when the error is this cheat's, near 0 for
    noise. Where a cheat changes nothing it cannot be told from honesty, and need not be: 0."""
    along = window_means((error_BTD * deviation_BTD).sum(dim=-1, dtype=torch.float64))
    power = window_means((deviation_BTD * deviation_BTD).sum(dim=-1, dtype=torch.float64))
    return torch.where(power > 0, along / power, 0.0)


def mismatches(claimed: Tensor, honest: Tensor, wire: str) -> Tensor:
    """The fraction of each row's elements that are not what the honest ones round to on the wire, [..., D] → [...]."""
    return (over_wire(claimed, wire) != over_wire(honest, wire)).float().mean(dim=-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`Σ p (log p - log q)` over the vocabulary, in nats: [..., V] → [...]."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).clamp(min=0)


def _split(hidden_BTD: Tensor) -> Sequence[Tensor]:
    """[1, at most _AT_ONCE, D] each, sequence after sequence."""
    return list(torch.split(hidden_BTD.flatten(0, 1).unsqueeze(0), _AT_ONCE, dim=1))


def _starts(length: int) -> list[int]:
    return [0] if length <= WINDOW else [*range(0, length - WINDOW, WINDOW), length - WINDOW]


def _opened(inputs_BTD: Tensor, replayed_BTD: Tensor, claimed_BKD: Tensor, first: int) -> Tensor:
    """The replayed rows that the claim is about."""
    if inputs_BTD.shape != replayed_BTD.shape or replayed_BTD.ndim != 3:
        raise InvalidInput(f"{list(replayed_BTD.shape)} is no replay of {list(inputs_BTD.shape)}")
    batch, length, hidden = replayed_BTD.shape
    count = claimed_BKD.shape[1] if claimed_BKD.ndim == 3 else 0
    if claimed_BKD.shape != (batch, count, hidden) or count == 0 or not 0 <= first <= length - count:
        raise TensorRejected(f"{list(claimed_BKD.shape)} from {first} on does not fit {[batch, length, hidden]}")
    return replayed_BTD[:, first : first + count]
