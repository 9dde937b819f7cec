"""A session's keys and values over one span."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from corolla_core.protocol.errors import InvalidInput, PositionMismatch
from corolla_core.protocol.span import Span


class ReservedLayer(DynamicLayer):  # type: ignore[misc]
    """One block's keys and values in memory reserved once for the whole session.

    Where transformers' own layer copies all it holds at every token, this writes the new rows in place.
    """

    def __init__(self, max_tokens: int) -> None:
        super().__init__()
        self.max_tokens = max_tokens
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = self._reserve(key_states), self._reserve(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self.length, self.length + key_states.shape[-2]
        # `narrow` is a slice of one dimension: at one call a block, session and token the others' cost shows.
        self.keys.narrow(2, start, end - start).copy_(key_states)
        self.values.narrow(2, start, end - start).copy_(value_states)
        self.length = end
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)

    def get_seq_length(self) -> int:
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        self.length -= abs(tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        if self.length:
            for held in (self.keys, self.values):
                held[:, :, : self.length] = held[:, :, : self.length].index_select(0, beam_idx.to(held.device))

    def _reserve(self, like: Tensor) -> Tensor:
        batch, heads, _tokens, width = like.shape
        return like.new_empty((batch, heads, self.max_tokens, width))


class ReservedWindowLayer(ReservedLayer):
    """The same for a sliding-window block. It shows attention what transformers' own layer would, but forgets nothing,
    so that it can be rolled back any distance."""

    is_sliding = True

    def __init__(self, max_tokens: int, window: int) -> None:
        super().__init__(max_tokens)
        self.sliding_window = window

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        hidden = self._hidden()
        keys, values = super().update(key_states, value_states)
        return keys[:, :, hidden:], values[:, :, hidden:]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        hidden = self._hidden()
        return self.length - hidden + query_length, hidden

    def get_max_length(self) -> int:
        return self.sliding_window

    def _hidden(self) -> int:
        """How many of the oldest positions no new token can see."""
        return max(0, self.length - self.sliding_window + 1)


Part = list[tuple[Tensor, Tensor]]
"""Some positions' keys and values in each block of a span."""


class SpanCache:
    """Keys and values of one session: `batch` rows of at most `max_tokens` positions. Made by `BlockRange.new_cache`.

    `length` counts the positions held. Not thread-safe: used by the compute thread only.
    """

    def __init__(self, config: Any, span: Span, *, batch: int, max_tokens: int) -> None:
        if batch < 1 or max_tokens < 1:
            raise InvalidInput(f"a cache holds at least one row and position, not {batch} and {max_tokens}")
        self.span, self.batch, self.max_tokens = span, batch, max_tokens
        self.length = 0
        self.entries = DynamicCache(config=config)
        for index, layer in enumerate(self.entries.layers):
            if type(layer) is DynamicLayer:
                self.entries.layers[index] = ReservedLayer(max_tokens)
            elif type(layer) is DynamicSlidingWindowLayer:
                self.entries.layers[index] = ReservedWindowLayer(max_tokens, layer.sliding_window)

    def crop(self, length: int) -> None:
        """Forget the positions from `length` on. Raises PositionMismatch when so many are not held, or when this
        architecture keeps a state that cannot be rolled back."""
        if not 0 <= length <= self.length:
            raise PositionMismatch("cannot roll back to there", expected=self.length, offered=length)
        if length == self.length:
            return
        if not _can_roll_back(self.entries):
            raise PositionMismatch("this model's state cannot be rolled back", expected=self.length, offered=length)
        for layer in self.entries.layers:
            layer.crop(length - self.length)
        self.length = length

    def reorder(self, indices: Sequence[int]) -> None:
        """Row i becomes what row `indices[i]` was (beam search). Raises InvalidInput unless there is one index in
        range for each row."""
        if len(indices) != self.batch or any(type(i) is not int or not 0 <= i < self.batch for i in indices):
            raise InvalidInput(f"reorder needs {self.batch} row numbers below {self.batch}")
        with torch.inference_mode():
            self.entries.reorder_cache(torch.tensor(indices, dtype=torch.int64))

    def part(self, start: int, stop: int) -> Part:
        """The positions `[start, stop)` in memory of their own; for a span that `batches`."""
        with torch.inference_mode():
            return [
                (layer.keys[:, :, start:stop].clone(), layer.values[:, :, start:stop].clone())
                for layer in self.entries.layers
            ]

    def append(self, part: Part) -> None:
        """Take in what `part` gave of a cache whose positions up to there were the same as this one's."""
        with torch.inference_mode():
            for layer, (keys, values) in zip(self.entries.layers, part, strict=True):
                layer.update(keys, values)
        self.length += part[0][0].shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes reserved now (0 before the first forward)."""
        return sum(layer_bytes(layer) for layer in self.entries.layers)


def rolls_back(config: Any) -> bool:
    """Whether all that the blocks of this architecture remember of a session can be rolled back."""
    return _can_roll_back(DynamicCache(config=config))


def _can_roll_back(entries: DynamicCache) -> bool:
    return all(isinstance(layer, DynamicLayer) for layer in entries.layers)


def layer_bytes(layer: Any) -> int:
    """Bytes of all tensors a cache layer of any kind holds."""
    return sum(_tensor_bytes(value) for value in vars(layer).values())


def _tensor_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(_tensor_bytes(inner) for inner in value.values())
    return sum(_tensor_bytes(inner) for inner in value) if isinstance(value, (list, tuple)) else 0
