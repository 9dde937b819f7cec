"""The output rows a session keeps, so that a lost neighbour can be replaced without recomputing anything here."""

from __future__ import annotations

import torch

from corolla_core.model.layout import bytes_of
from corolla_core.protocol.errors import PositionMismatch


def kept_bytes(batch: int, max_tokens: int, width: int, dtype: torch.dtype) -> int:
    """What `KeptRows` of this size may take at most. Beams keep a second copy: see `replay`."""
    return (2 if batch > 1 else 1) * batch * max_tokens * width * dtype.itemsize


class KeptRows:
    """`[batch, length, width]` rows as they travel, in main memory.

    They follow the KV cache through `crop` and `reorder`. The rows from before the last reorder stay readable through
    `replay`: a replacement that still has to do that step must reorder them itself, as its own neighbours do.
    """

    def __init__(self, batch: int, max_tokens: int, width: int, dtype: torch.dtype) -> None:
        self._rows = torch.empty(batch, max_tokens, width, dtype=dtype)
        self._bytes = _in_order(self._rows)
        self._spare: torch.Tensor | None = None
        self._reordered_at: int | None = None
        self.length = 0

    def append(self, rows_BTD: torch.Tensor) -> None:
        """`rows_BTD` is contiguous and in the rows' dtype."""
        end = self.length + rows_BTD.shape[1]
        if self._bytes is None:
            self._rows[:, self.length : end] = rows_BTD
        else:
            size = rows_BTD.nbytes // rows_BTD.shape[1]
            self._bytes[self.length * size : end * size] = bytes_of(rows_BTD)
        self.length = end

    def crop(self, length: int) -> None:
        """Keep the first `length` positions."""
        self._check(length)
        self.length = length
        if self._reordered_at is not None and length < self._reordered_at:
            self._reordered_at = None

    def reorder(self, indices: list[int]) -> None:
        """Row `i` becomes what row `indices[i]` was."""
        before = self._rows
        after = self._spare if self._spare is not None else torch.empty_like(before)
        after[:, : self.length] = before[:, : self.length].index_select(0, torch.tensor(indices))
        self._rows, self._spare, self._reordered_at = after, before, self.length
        self._bytes = _in_order(after)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Positions `[start, stop)`, contiguous and detached from later changes. Raises PositionMismatch."""
        self._check(stop)
        return self._rows[:, start:stop].clone(memory_format=torch.contiguous_format)

    def replay(self, start: int, stop: int, *, upto: int) -> torch.Tensor:
        """Positions `[start, stop)` of what went out before the step that began at `upto`."""
        self._check(upto)
        source = self._spare if self._spare is not None and self._reordered_at == upto else self._rows
        return source[:, start:stop].clone(memory_format=torch.contiguous_format)

    def _check(self, length: int) -> None:
        if length > self.length:
            raise PositionMismatch("beyond the rows kept", expected=self.length, offered=length)


def _in_order(rows: torch.Tensor) -> memoryview | None:
    """The memory of one sequence, to which a row is added without torch; None where rows of several alternate."""
    return bytes_of(rows) if rows.shape[0] == 1 else None
