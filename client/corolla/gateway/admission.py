"""Which requests run, which wait and which are turned away: decided here, done by `door`.

At most `running` streams run, and of one key `per_key`. Up to `waiting` requests wait for `patience` seconds. Of those
that wait and may run, the next is of the key that has the fewest streams running, then of the one that was served the
longest ago: a key gains nothing by asking more often. Nor does it by filling the queue, for a newcomer takes the place
of the newest request of the key that has most of them waiting.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from corolla_core.protocol.errors import InvalidInput

#: Bounds of what a client is told to wait, in seconds, and what it is told before anything was observed.
LEAST_WAIT, MOST_WAIT, FIRST_WAIT = 1, 60, 5
_NEWEST_COUNTS = 0.2

_NOBODY: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """Of streams that run, in all and of one key, and of requests that wait, and for how many seconds."""

    running: int = 200
    per_key: int = 200
    waiting: int = 64
    patience: float = 10.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request of `streams` texts at once."""

    ticket: int
    key: str
    streams: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast streams end: `gap`, seconds from one end to the next, the newest counting most; None until observed."""

    gap: float | None = None
    last: float | None = None

    def ended(self, now: float, streams: int) -> Pace:
        if self.last is None:
            return replace(self, last=now)
        seen = max(0.0, now - self.last) / streams
        gap = seen if self.gap is None else self.gap + _NEWEST_COUNTS * (seen - self.gap)
        return Pace(gap, now)

    def wait(self, streams: int) -> int:
        """Whole seconds until that many more streams will have ended."""
        if self.gap is None:
            return FIRST_WAIT
        return max(LEAST_WAIT, min(MOST_WAIT, math.ceil(self.gap * streams)))


@dataclass(frozen=True, slots=True)
class Line:
    """What runs and what waits, in order of arrival. `served`: the number of each key's last admission."""

    running: Mapping[str, int] = field(default_factory=lambda: _NOBODY)
    waiting: tuple[Waiting, ...] = ()
    served: Mapping[str, int] = field(default_factory=lambda: _NOBODY)
    admissions: int = 0
    pace: Pace = field(default_factory=Pace)

    @property
    def busy(self) -> int:
        return sum(self.running.values())


@dataclass(frozen=True, slots=True)
class Moved:
    """A new state, the tickets that now run, and those that are turned away."""

    line: Line
    admitted: tuple[int, ...] = ()
    shed: tuple[int, ...] = ()


def arrive(line: Line, ticket: int, *, key: str, streams: int, limits: Limits) -> Moved:
    """A request comes. Its ticket is admitted or shed, or else waits.

    Raises InvalidInput for more streams than could ever run together.
    """
    most = min(limits.running, limits.per_key)
    if not 1 <= streams <= most:
        raise InvalidInput(f"one request may ask for 1 to {most} texts, not {streams}")
    newcomer = Waiting(ticket, key, streams)
    moved = _promote(replace(line, waiting=(*line.waiting, newcomer)), limits)
    if len(moved.line.waiting) <= limits.waiting:
        return moved
    out = _displaced(moved.line.waiting)
    kept = tuple(each for each in moved.line.waiting if each.ticket != out)
    # What went may have kept the next ones waiting.
    after = _promote(replace(moved.line, waiting=kept), limits)
    return Moved(after.line, moved.admitted + after.admitted, (out,))


def depart(line: Line, *, key: str, streams: int, now: float, limits: Limits) -> Moved:
    """Streams that ran have ended."""
    left = dict(line.running)
    left[key] -= streams
    if not left[key]:
        del left[key]
    return _promote(replace(line, running=left, pace=line.pace.ended(now, streams)), limits)


def give_up(line: Line, ticket: int, *, limits: Limits) -> Moved:
    """A request that waits has waited for too long, or is not wanted any more; a no-op for any other."""
    return _promote(replace(line, waiting=tuple(w for w in line.waiting if w.ticket != ticket)), limits)


def retry_after(line: Line, streams: int) -> int:
    """Whole seconds after which that many streams may find room, as fast as streams end now."""
    return line.pace.wait(streams + sum(each.streams for each in line.waiting))


def _promote(line: Line, limits: Limits) -> Moved:
    admitted = []
    while (chosen := _next(line, limits)) is not None:
        # A large request is not passed by: smaller ones would keep it waiting for ever.
        if line.busy + chosen.streams > limits.running:
            break
        count = line.admissions + 1
        running = {**line.running, chosen.key: line.running.get(chosen.key, 0) + chosen.streams}
        waiting = tuple(each for each in line.waiting if each is not chosen)
        present = running.keys() | {each.key for each in waiting}
        served = {key: number for key, number in line.served.items() if key in present} | {chosen.key: count}
        line = replace(line, running=running, waiting=waiting, served=served, admissions=count)
        admitted.append(chosen.ticket)
    return Moved(line, tuple(admitted))


def _next(line: Line, limits: Limits) -> Waiting | None:
    first: dict[str, Waiting] = {}
    for each in line.waiting:
        first.setdefault(each.key, each)
    able = [each for each in first.values() if line.running.get(each.key, 0) + each.streams <= limits.per_key]
    return min(able, key=lambda each: (line.running.get(each.key, 0), line.served.get(each.key, 0)), default=None)


def _displaced(waiting: tuple[Waiting, ...]) -> int:
    """The newest request of the key that has most requests waiting; of such keys the one that came last."""
    counts = Counter(each.key for each in waiting)
    return max(enumerate(waiting), key=lambda item: (counts[item[1].key], item[0]))[1].ticket
