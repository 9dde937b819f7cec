"""Speculation on one text: a drafter's guesses, as many as pay."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corolla.drafter import HOPELESS, Drafter
from corolla.pace import Pace
from corolla_core.model.sampling import Sampler
from corolla_core.protocol.errors import InvalidInput

AUTO, OFF, LOOKUP = "auto", "off", "lookup"


@dataclass(frozen=True, slots=True)
class Speculation:
    """Whether tokens are guessed and several sent through the nodes at once. What is said does not depend on it.

    `by`: "lookup" guesses what followed the same words before; "auto" does so where the model allows it; "off" never;
    anything else is the checkpoint of a small draft model, which this machine runs. When it pays is found out as the
    text goes on. `waste`: for each token generated, at most so many wrongly guessed positions are paid for.
    """

    by: str = AUTO
    waste: float = 0.5

    def __post_init__(self) -> None:
        if not self.by or not (math.isfinite(self.waste) and 0 <= self.waste <= 100):
            raise InvalidInput("speculation is by auto, off, lookup or a checkpoint, its waste from 0 to 100")


class Speculator:
    """Used on the compute thread. `drafted` and `accepted` count tokens sent, and those that were right."""

    def __init__(self, drafter: Drafter, pace: Pace, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.drafted = self.accepted = 0
        self._drafter = drafter
        self._pace = pace
        self._clock = clock
        self._hope = HOPELESS
        self._drafting = 0.0

    def begin(self, prompt: Sequence[int]) -> None:
        """The prompt is on its way."""
        self._drafter.take(prompt)

    def first(self, token: int, *, positions: int, seconds: float | None) -> None:
        """The prompt's last positions, so many, took `seconds` and brought the first token."""
        self._pace.prompt(positions, seconds)
        self._drafter.take([token])

    def learn(self, tokens: Sequence[int], *, drafted: int, accepted: int, seconds: float | None) -> None:
        """A step brought `tokens`; it took `seconds` beside the time for drafting."""
        self.drafted += drafted
        self.accepted += accepted
        whole = None if seconds is None else seconds + self._drafting
        self._pace.step(self._hope, drafted=drafted, accepted=accepted, seconds=whole)
        self._drafter.take(tokens)

    def guess(self, sampler: Sampler, *, most: int) -> list[int]:
        """Tokens that may come next, to be sent along."""
        began = self._clock()
        self._hope = self._drafter.hope()
        count = self._pace.choose(self._hope, most=most)
        guessed = self._drafter.draft(count, sampler.fork()) if count else []
        self._drafting = self._clock() - began if guessed else 0.0
        return guessed
