"""Guesses at the next tokens: what a drafter is, and the one that needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from corolla_core.model.sampling import Sampler

MAX_DRAFT = 15
"""Tokens drafted at most: with the certain one before them a step of 16 positions."""


@dataclass(frozen=True, slots=True)
class Hope:
    """How promising a draft would be now: up to `most` tokens, each of them right with chance `prior` as long as
    nothing better is known of drafts of this `kind`."""

    most: int
    kind: int
    prior: float


HOPELESS = Hope(0, 0, 0.0)


class Drafter(Protocol):
    """One text's drafter, used on the compute thread."""

    def take(self, tokens: Sequence[int]) -> None:
        """These are certain now, after all that were before."""
        ...

    def hope(self) -> Hope: ...

    def draft(self, count: int, sampler: Sampler) -> list[int]:
        """`count` tokens that may follow, at most what `hope` has just promised. `sampler` is a fork of the text's own,
        to be used up: a drafter with logits of its own picks by the same random numbers as will be used on the true
        ones."""
        ...


class PromptLookup:
    """What followed the last tokens where they stood before, in the prompt or in the text so far (Saxena 2023, "Prompt
    Lookup Decoding"): the longest match of up to `LONGEST` tokens, and of equally long ones the latest. A match that
    runs into its own end goes on periodically."""

    LONGEST = 4
    PRIORS = (0.2, 0.5, 0.7, 0.8)
    """by how many tokens match"""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._seen: list[dict[tuple[int, ...], int]] = [{} for _ in range(self.LONGEST)]
        """for each length, where the latest of such runs ended that something followed"""

    def take(self, tokens: Sequence[int]) -> None:
        ids = self._ids
        for token in tokens:
            for length, seen in enumerate(self._seen, start=1):
                if len(ids) >= length:
                    seen[tuple(ids[-length:])] = len(ids)
            ids.append(token)

    def hope(self) -> Hope:
        length, _ = self._match()
        return Hope(MAX_DRAFT, length, self.PRIORS[length - 1]) if length else HOPELESS

    def draft(self, count: int, sampler: Sampler) -> list[int]:
        length, at = self._match()
        period = len(self._ids) - at
        return [self._ids[at + n % period] for n in range(count)] if length else []

    def _match(self) -> tuple[int, int]:
        """(tokens that match, where what followed them begins)"""
        for length in range(min(self.LONGEST, len(self._ids)), 0, -1):
            at = self._seen[length - 1].get(tuple(self._ids[-length:]))
            if at is not None:
                return length, at
        return 0, 0
