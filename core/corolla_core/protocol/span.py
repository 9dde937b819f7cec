"""A half-open range of transformer blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corolla_core.protocol.errors import InvalidSpan

MAX_BLOCKS = 4096


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Blocks `start` to `end - 1` of a model: `Span(0, 16)` serves blocks 0 to 15. Never empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if type(self.start) is not int or type(self.end) is not int or not 0 <= self.start < self.end <= MAX_BLOCKS:
            raise InvalidSpan("a span is 0 <= start < end", start=self.start, end=self.end)

    @classmethod
    def parse(cls, text: str) -> Span:
        """The span written `start:end`."""
        start, colon, end = text.partition(":")
        if not (colon and start.isdecimal() and end.isdecimal()):
            raise InvalidSpan(f"write a span as start:end, not {text!r}")
        return cls(int(start), int(end))

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"

    def __len__(self) -> int:
        return self.end - self.start

    def __contains__(self, other: object) -> bool:
        """Whether a block index, or the whole of another span, lies inside."""
        if isinstance(other, Span):
            return self.start <= other.start and other.end <= self.end
        return isinstance(other, int) and self.start <= other < self.end

    def overlaps(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end

    def blocks(self) -> range:
        return range(self.start, self.end)


def uncovered(total: int, spans: Iterable[Span]) -> list[int]:
    """The block indices of `[0, total)` in none of the spans."""
    covered = {block for span in spans for block in span.blocks()}
    return [block for block in range(total) if block not in covered]
