"""How many tokens to draft for the next step: a pure decision on what steps took and what became of drafts.

A step of 1 + k positions takes about `single + k * extra` seconds. With chance a that a drafted token is right given
that those before it were, it brings (1 - a^(k+1)) / (1 - a) tokens on average (Leviathan et al. 2023, eq. 1). The k
that brings most per second is taken, where that beats no draft by `MARGIN`.

That it is never slower than without does not rest on these estimates: every speculative step is held against what its
tokens would have taken one by one, and what may be lost in all is `HEAD_START` of a single step and `SHARE` of the
time. So a step is speculative only where it cannot lose more than is left, were nothing of it right. How much money
may go into rejected positions is bounded in the same way.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

from corolla.drafter import MAX_DRAFT, Hope

MARGIN = 1.05
SHARE = 0.01
HEAD_START = 0.5
MOST_SAVED = 4.0
"""Single steps of gained time that may be lost again: after a good stretch, a bad one must be noticed soon."""
FIRST_TOKENS = 16
"""Waste is granted for so many tokens ahead, or the first draft would have to wait for them."""
_PRIOR_WEIGHT = 1.0
_TRIAL_FADES = 0.8
_STEP_FADES = 0.97


@dataclass(slots=True)
class _Luck:
    right: float = 0.0
    wrong: float = 0.0

    def fade(self, factor: float) -> None:
        self.right *= factor
        self.wrong *= factor


class Pace:
    """One text's. `waste`: rejected positions per generated token at most. Seconds of None were not measured."""

    def __init__(self, *, waste: float) -> None:
        self._waste = waste
        self._generated = self._wasted = 0
        self._singles: deque[float] = deque(maxlen=8)
        self._longer: deque[float] = deque(maxlen=4)
        self._luck: dict[int, _Luck] = {}
        self._seconds = 0.0
        self._saved = 0.0
        self._at_most: float | None = None
        """what a position of the prompt took, so that an extra one takes no more"""
        self._extra_seconds = self._extra_positions = 0.0

    @property
    def single(self) -> float | None:
        """Seconds of a step of one position. One of several cannot take less, and is newer where all are drafted."""
        if not self._singles:
            return None
        alone = median(self._singles)
        return min(alone, median(self._longer)) if self._longer else alone

    def prompt(self, positions: int, seconds: float | None) -> None:
        """The prompt went through, and brought the first token."""
        self._generated += 1
        if seconds is not None:
            self._at_most = seconds / positions

    def step(self, hope: Hope, *, drafted: int, accepted: int, seconds: float | None) -> None:
        """A step with `drafted` tokens, made in that hope, brought `accepted` of them and one more."""
        self._generated += 1 + accepted
        self._wasted += drafted - accepted
        for luck in self._luck.values():
            luck.fade(_STEP_FADES)
        if drafted:
            luck = self._luck.setdefault(hope.kind, _Luck())
            luck.fade(_TRIAL_FADES)
            luck.right += accepted
            luck.wrong += accepted < drafted
        if seconds is None:
            return
        self._seconds += seconds
        (self._longer if drafted else self._singles).append(seconds)
        self._extra_seconds *= _STEP_FADES
        self._extra_positions *= _STEP_FADES
        single = self.single
        if drafted and single is not None:
            # What takes longer than the same positions one by one is an accident, and no plain step would be spared it.
            seconds = min(seconds, (1 + drafted) * single)
            self._extra_seconds += max(0.0, seconds - single)
            self._extra_positions += drafted
            self._saved = min(self._saved + (1 + accepted) * single - seconds, MOST_SAVED * single)

    def choose(self, hope: Hope, *, most: int) -> int:
        """How many tokens to draft, at most `most`; 0 for none."""
        single = self.single
        if single is None:
            return 0
        extra, chance = self._extra(single), self._chance(hope)
        to_lose = self._saved + HEAD_START * single + SHARE * self._seconds
        to_waste = int(self._waste * (self._generated + FIRST_TOKENS)) - self._wasted
        best, best_rate = 0, MARGIN / single
        tokens = likely = 1.0
        for count in range(1, min(most, hope.most, to_waste, MAX_DRAFT) + 1):
            if count * extra > to_lose:
                break
            likely *= chance
            tokens += likely
            rate = tokens / (single + count * extra)
            if rate > best_rate:
                best, best_rate = count, rate
        return best

    def _extra(self, single: float) -> float:
        """Seconds that one more position takes: what was seen, and the prompt's bound as one observation more."""
        guess = single / 2 if self._at_most is None else self._at_most
        return min(single, (guess + self._extra_seconds) / (1 + self._extra_positions))

    def _chance(self, hope: Hope) -> float:
        luck = self._luck.get(hope.kind, _Luck())
        return (hope.prior * _PRIOR_WEIGHT + luck.right) / (_PRIOR_WEIGHT + luck.right + luck.wrong)
