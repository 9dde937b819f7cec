"""Small blocks whose output shows whether a session's cache was right: every input of a row counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import torch

from corolla_core.protocol.errors import CorollaError, InvalidInput, NotServed
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.possession import possession_digest
from corolla_core.protocol.span import Span

HIDDEN = 4


class FakeWeights:
    """Weights of which every block has four chunks of 32 bytes; `nbytes` is what it says they take."""

    def __init__(self, span: Span, *, nbytes: int = 32) -> None:
        self.span = span
        self.nbytes = nbytes
        self.failing: CorollaError | None = None
        self.before_reading: Callable[[], None] = lambda: None

    def count(self, block: int) -> int:
        if block not in self.span.blocks():
            raise NotServed("no such block")
        return 4

    def size(self, chunk: tuple[int, int]) -> int:
        if not 0 <= chunk[1] < self.count(chunk[0]):
            raise InvalidInput("no such chunk")
        return self.nbytes

    def digests(self, account: Address, salt: Hash32, chunks: Sequence[tuple[int, int]]) -> list[Hash32]:
        self.before_reading()
        if self.failing is not None:
            raise self.failing
        return [possession_digest(account, salt, sha256(b"%d %d" % tuple(chunk)).digest()) for chunk in chunks]


class FakeCache:
    """Remembers its inputs."""

    def __init__(self, batch: int) -> None:
        self.seen = torch.zeros(batch, 0, HIDDEN)

    @property
    def length(self) -> int:
        return self.seen.shape[1]

    def crop(self, length: int) -> None:
        self.seen = self.seen[:, :length]

    def part(self, start: int, stop: int) -> torch.Tensor:
        return self.seen[:, start:stop].clone()

    def append(self, part: torch.Tensor) -> None:
        self.seen = torch.cat([self.seen, part], dim=1)

    def reorder(self, indices: list[int]) -> None:
        self.seen = self.seen[indices]


class FakeBlocks:
    """Blocks whose output at a position depends on every input of that row so far, and on the span."""

    hidden_size = HIDDEN
    batches = True

    def __init__(self, span: Span) -> None:
        self.span = span
        self.computed = 0
        self.passes: list[int] = []
        self.break_next: Exception | None = None
        self.before_forward: Callable[[], None] = lambda: None

    def new_cache(self, batch: int, max_tokens: int) -> FakeCache:
        return FakeCache(batch)

    def forward(self, hidden_BTD: torch.Tensor, cache: Any) -> torch.Tensor:
        self.before_forward()
        if self.break_next is not None:
            error, self.break_next = self.break_next, None
            raise error
        start = cache.length
        cache.seen = torch.cat([cache.seen, hidden_BTD], dim=1)
        self.computed += hidden_BTD.shape[0] * hidden_BTD.shape[1]
        weights = torch.arange(1, cache.length + 1).reshape(1, -1, 1)
        mixed = (cache.seen * weights).cumsum(dim=1) / weights
        output: torch.Tensor = torch.tanh(mixed[:, start:] + self.span.start) + hidden_BTD
        return output

    def forward_many(self, steps: Sequence[tuple[torch.Tensor, Any]]) -> list[torch.Tensor | Exception]:
        self.passes.append(len(steps))
        return [self._outcome(*step) for step in steps]

    def _outcome(self, hidden_BTD: torch.Tensor, cache: Any) -> torch.Tensor | Exception:
        try:
            return self.forward(hidden_BTD, cache)
        except Exception as error:
            return error

    def sub(self, span: Span) -> FakeBlocks:
        return FakeBlocks(span)

    def kv_bytes(self, batch: int, tokens: int) -> int:
        return batch * tokens * 8 * len(self.span)
