"""How many may listen at once: each costs a connection for as long as its page is open."""

from __future__ import annotations

from collections import Counter

MOST = 256
MOST_EACH = 16
"""From one address."""


class Seats:
    def __init__(self, *, most: int = MOST, each: int = MOST_EACH) -> None:
        self._most = most
        self._each = each
        self._taken: Counter[str] = Counter()

    def take(self, who: str) -> bool:
        """Whether there was one; then give it back with `leave`."""
        if self._taken.total() >= self._most or self._taken[who] >= self._each:
            return False
        self._taken[who] += 1
        return True

    def leave(self, who: str) -> None:
        self._taken[who] -= 1
        self._taken += Counter()  # forgets those with none
