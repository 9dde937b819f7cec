"""Which of the steps that are ready go through the span in the next pass: a pure choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

MAX_DECODE_ROWS = 64
"""How many positions a pass decodes at most, over all rows of all sessions."""
MAX_PREFILL_ROWS = 128
"""How many positions of prompts go beside them at most. A step that is larger by itself goes alone."""
PASSES_PER_PREFILL = 8
"""How many passes may leave a waiting prefill chunk behind before it gets its turn."""
PATIENCE = 4
"""How often a step may be left behind for others that pay more. After that it goes before all that were not, first
come, first served: with one step a session there are finitely many of these, so that none waits for ever."""


class Ready(Protocol):
    """A step that could be computed now."""

    @property
    def blocks(self) -> object:
        """What it runs through: one pass is through one span."""
        ...

    @property
    def rows(self) -> int: ...

    @property
    def price(self) -> int:
        """per token and block"""
        ...

    left_behind: int


R = TypeVar("R", bound=Ready)


def choose(decode: Sequence[R], prefill: Sequence[R], *, overtaken: int) -> tuple[list[R], list[R]]:
    """The next pass's (decode steps, prefill chunks) of those ready, in order of arrival; `overtaken` passes have left
    the prefill lane behind. Together they are empty only where nothing is ready.

    The first in rank goes, and with it all that run through the same blocks and fit. Decode steps never wait for
    prefill to fill a pass; prefill, when its turn has come, takes them along.
    """
    prefills_turn = bool(prefill) and (not decode or overtaken >= PASSES_PER_PREFILL)
    lead = min(prefill if prefills_turn else decode, key=_rank, default=None)
    if lead is None:
        return [], []
    decoding = _fitting((each for each in decode if each.blocks is lead.blocks), MAX_DECODE_ROWS)
    if not prefills_turn:
        return decoding, []
    return decoding, _fitting((each for each in prefill if each.blocks is lead.blocks), MAX_PREFILL_ROWS)


def leave_behind(waiting: Iterable[Ready]) -> None:
    """Remember that a pass went without these."""
    for each in waiting:
        each.left_behind += 1


def _rank(ready: Ready) -> tuple[bool, int]:
    """Lower goes first; of equals, who came first."""
    overdue = ready.left_behind >= PATIENCE
    return not overdue, 0 if overdue else -ready.price


def _fitting(candidates: Iterable[R], limit: int) -> list[R]:
    taken: list[R] = []
    rows = 0
    for each in sorted(candidates, key=_rank):
        if not taken or rows + each.rows <= limit:
            taken.append(each)
            rows += each.rows
    return taken
