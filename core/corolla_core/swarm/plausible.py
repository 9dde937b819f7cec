"""How fast a node is believed to be on its word alone."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from corolla_core.swarm.announcement import Announcement

#: Nobody is taken to be faster than this many times the median until that is measured: of honest nodes few are, and who
#: exaggerates gains no more than this by it.
MOST_TIMES_MEDIAN = 5


def most_believed(swarm: Iterable[Announcement]) -> float:
    """The most blocks a second, in thousandths, that anyone of the swarm is believed to compute; infinite where nobody
    announces a throughput."""
    rates = [rate for rate in map(announced_rate, swarm) if rate > 0]
    return MOST_TIMES_MEDIAN * median(rates) if rates else float("inf")


def announced_rate(announcement: Announcement) -> int:
    """Thousandths of a block a second, one token at a time."""
    return announcement.throughput * len(announcement.span)
