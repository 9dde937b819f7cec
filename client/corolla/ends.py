"""What one session computes on the client's own machine: embeddings and head, and any first and last blocks it keeps.

All of it is for the compute thread. Legend: B rows of the session, T positions of a step, D hidden size, V vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from corolla_core.model.block_range import BlockRange
from corolla_core.model.cache import SpanCache


class Outside(Protocol):
    """What a model does before its first block and after its last."""

    def front(self, ids_BT: Sequence[Sequence[int]], position: int) -> Tensor: ...

    def travelling(self, hidden_BTD: Tensor) -> Tensor: ...

    def all_logits(self, hidden_BTD: Tensor) -> Tensor: ...


class Ends:
    """`embed` goes before the nodes and `logits` after them, for the same positions; both may go back to an earlier
    position, and forget what they held from there on."""

    def __init__(
        self, outside: Outside, first: BlockRange | None, last: BlockRange | None, *, batch: int, max_tokens: int
    ) -> None:
        self._outside = outside
        self._first = _Kept(first, batch, max_tokens) if first is not None else None
        self._last = _Kept(last, batch, max_tokens) if last is not None else None
        self._size = (batch, max_tokens)
        self._sent: Tensor | None = None

    @property
    def reach(self) -> int:
        """A step may begin at this position or before: the last blocks need the outputs of all before it."""
        return self._last.cache.length if self._last is not None else sys.maxsize

    def embed(self, ids_BT: Sequence[Sequence[int]], position: int, *, reorder: Sequence[int] | None = None) -> Tensor:
        """The hidden states `[B, T, D]` that go to the nodes, as they travel. `reorder`: what each row was before."""
        hidden = self._outside.front(ids_BT, position)
        if self._first is None:
            return self._outside.travelling(hidden)
        hidden = self._outside.travelling(self._first.forward(hidden, position, reorder))
        if self._sent is None:
            self._sent = hidden.new_empty((*self._size, hidden.shape[2]))
        self._sent[:, position : position + hidden.shape[1]] = hidden
        return hidden

    def again(self, ids_BT: Sequence[Sequence[int]], start: int) -> Tensor:
        """What `embed` gave for positions from `start` on, to the bit: a node that is new must get no other history."""
        if self._sent is None:
            return self._outside.travelling(self._outside.front(ids_BT, start))
        return self._sent[:, start : start + len(ids_BT[0])].clone()

    def logits(self, output_BTD: Tensor, position: int, *, keep: int, reorder: Sequence[int] | None = None) -> Tensor:
        """Logits `[B, keep, V]` of the last `keep` positions of a step that began at `position`. With last blocks here
        the nodes' outputs are those of the whole step."""
        if reorder is not None and self._sent is not None:
            self._sent[:, :position] = self._sent[list(reorder), :position]
        if self._last is not None:
            output_BTD = self._last.forward(output_BTD, position, reorder)
        return self._outside.all_logits(output_BTD[:, -keep:])


class _Kept:
    """Blocks kept here, with this session's cache."""

    def __init__(self, blocks: BlockRange, batch: int, max_tokens: int) -> None:
        self._blocks = blocks
        self.cache: SpanCache = blocks.new_cache(batch, max_tokens)

    def forward(self, hidden_BTD: Tensor, position: int, reorder: Sequence[int] | None) -> Tensor:
        self.cache.crop(position)
        if reorder is not None:
            self.cache.reorder(reorder)
        with torch.inference_mode():
            return self._blocks.forward(hidden_BTD, self.cache)
