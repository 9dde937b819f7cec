"""Which sessions are about to come back for their next token, so that a pass need not leave without them."""

from __future__ import annotations

from collections.abc import Hashable

PATIENCE = 1 / 8
"""How long a pass may wait, as a part of the last one. A pass for many takes little longer than one for few: two groups
of sessions that take turns, each ready while the other is computed, are served in nearly twice the time."""


class Returns:
    """Waited for is who came back within the patience the last time, and nobody else: no session whose token goes
    through other nodes or over a long line first, and none that has paused. Times are seconds of one clock."""

    def __init__(self) -> None:
        self.patience = 0.0
        self._left: dict[Hashable, float] = {}
        self._prompt: set[Hashable] = set()

    def passed(self, seconds: float) -> None:
        """So long took a pass that decoded."""
        self.patience = PATIENCE * seconds

    def left(self, who: Hashable, now: float) -> None:
        """Its token has been computed."""
        self._left[who] = now

    def came(self, who: Hashable, now: float) -> None:
        """Its next step is here."""
        left = self._left.pop(who, None)
        if left is not None and now <= left + self.patience:
            self._prompt.add(who)

    def until(self, now: float) -> float:
        """How long a pass that could begin now should wait, at the longest."""
        for who in [who for who, left in self._left.items() if now > left + self.patience]:
            del self._left[who]
            self._prompt.discard(who)
        return max((left + self.patience for who, left in self._left.items() if who in self._prompt), default=now)
