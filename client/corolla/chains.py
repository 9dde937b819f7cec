"""The cheapest chain of nodes over a range of blocks, each node at most once, in bounded work.

Costs are linear in blocks, so an optimal chain changes hands only where some node's span begins or ends.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span

#: How many chains begun the exact search may put down; beyond, a good chain has to do.
EFFORT = 3000
_ROUNDING = 1e-9
_NEVER = float("inf")


class Rider(NamedTuple):
    """A node that serves any part of `span`: `entry` once, and `per_block` for every block."""

    account: Address
    span: Span
    entry: float
    per_block: float


@dataclass(frozen=True, slots=True)
class Piece:
    account: Address
    span: Span


#: In this order no rider is dominated by a later one.
_cheap_first = itemgetter(3, 2, 0)


def undominated(riders: Iterable[Rider], want: Span) -> list[Rider]:
    """Those within `want` that no other matches in entry, price a block and reach at once, cheapest a block first.

    Where a node may come twice, no chain is dearer for having these alone: whoever is dominated can be replaced.
    """
    first, size = want.start, len(want)
    # The least entry of those seen so far that serve [s, e): they ask no more for a block than the next one does.
    least = [[_NEVER] * (size + 1) for _ in range(size)]
    kept = []
    for rider in sorted(riders, key=_cheap_first):
        span, entry = rider.span, rider.entry
        start, end = span.start - first, span.end - first
        if least[start][end] <= entry:
            continue
        kept.append(rider)
        for s in range(start, end):
            row = least[s]
            if row[end] <= entry:
                break  # and so is every part of it
            for e in range(end, s, -1):
                if row[e] <= entry:
                    break
                row[e] = entry
    return kept


@dataclass(slots=True)
class _Ride:
    """The best way to be on a rider where the walk stands: what it costs, and the chain before it was boarded."""

    account: Address
    end: int
    entry: float
    per_block: float
    cost: float = _NEVER
    hops: int = 0
    path: tuple[Address, ...] = ()
    stops: tuple[int, ...] = ()


class ChainSearch:
    """The riders, one of each account, must lie within `want`; for `best` they must cover every block of it.

    Where a node may serve two pieces the cheapest chain is a walk along the blocks; mostly it uses none twice, and is
    the answer. Otherwise a good chain and that walk tell an exact search what a chain costs at most and at least, and
    who cannot be part of one. A search that takes more than `effort` is given up for the good chain, in which a node
    serves only the longest of its pieces. `steps` counts.
    """

    def __init__(self, riders: Sequence[Rider], want: Span, *, effort: int = EFFORT) -> None:
        self.steps = 0
        self._riders = riders
        self.want = want
        self._effort = effort
        self._able = undominated(riders, want)

    def missing(self) -> list[int]:
        """The blocks that nobody serves."""
        served = {block for rider in self._able for block in rider.span.blocks()}
        return [block for block in self.want.blocks() if block not in served]

    def best(self) -> tuple[Piece, ...]:
        """The cheapest chain; equal ones are told apart by the number of pieces, then by accounts."""
        chain = self._walk()
        if not _repeated(chain):
            return chain
        good = self._without_repeats(chain)
        lines = {rider.account: rider for rider in self._riders}
        most = sum(lines[p.account].entry + lines[p.account].per_block * len(p.span) for p in good)
        return self._exact(most + _ROUNDING) or good

    def _walk(self) -> tuple[Piece, ...]:
        """The cheapest chain if nodes may come twice: for each rider, the best way to be on it so far."""
        cost, hops = 0.0, 0
        path: tuple[Address, ...] = ()
        stops: tuple[int, ...] = (self.want.start,)
        getting_on, on = _by(self._able, lambda rider: rider.span.start), list[_Ride]()
        for at, stop in itertools.pairwise(self._points(self._able)):
            on = [ride for ride in on if ride.end > at]
            on += [_Ride(r.account, r.span.end, r.entry, r.per_block) for r in getting_on.get(at, ())]
            self.steps += len(on)
            blocks, best, least = stop - at, on[0], _NEVER
            for ride in on:
                fresh = cost + ride.entry
                if fresh < ride.cost or (fresh == ride.cost and hops < ride.hops):
                    ride.cost, ride.hops, ride.path, ride.stops = fresh, hops, path, stops
                ride.cost += ride.per_block * blocks
                if ride.cost <= least and (ride.cost < least or (ride.hops, ride.account) < (best.hops, best.account)):
                    best, least = ride, ride.cost
            cost, hops, path, stops = least, best.hops + 1, (*best.path, best.account), (*best.stops, stop)
        return _pieces(path, stops)

    def _exact(self, most: float) -> tuple[Piece, ...] | None:
        """Best-first by what a chain begun will cost at least, which `most` bounds; None when that takes more than the
        effort allowed."""
        rest = self._at_least()
        riders = self._promising(rest, most)
        points = self._points(riders)
        spans = {rider.account: rider.span for rider in riders}
        here = {at: [r for r in riders if r.span.start <= at < r.span.end] for at in points}
        start = self.want.start
        queue: list[tuple[float, int, tuple[Address, ...], tuple[int, ...], float]] = [
            (rest[start], 0, (), (start,), 0.0)
        ]
        settled: dict[int, list[tuple[frozenset[Address], float]]] = {point: [] for point in points}
        pushed = 0
        while queue:
            _bound, hops, path, stops, cost = heapq.heappop(queue)
            at = stops[-1]
            if at == self.want.end:
                return _pieces(path, stops)
            # Dominated by a chain as cheap that has used no node that still matters besides those this one has.
            used = frozenset(account for account in path if spans[account].end > at)
            if any(others <= used and cheaper <= cost for others, cheaper in settled[at]):
                continue
            settled[at].append((used, cost))
            for rider in here[at]:
                if rider.account in path:
                    continue
                for stop in points:
                    if at < stop <= rider.span.end:
                        total = cost + rider.entry + rider.per_block * (stop - at)
                        self.steps += 1
                        if total + rest[stop] > most:
                            continue
                        entry = (total + rest[stop], hops + 1, (*path, rider.account), (*stops, stop), total)
                        heapq.heappush(queue, entry)
                        pushed += 1
            if pushed > self._effort:
                return None
        return None

    def _at_least(self) -> dict[int, float]:
        """What the rest of a chain costs at least from each block: the walk, from the other end."""
        rest = {self.want.end: 0.0}
        on: list[tuple[Rider, float]] = []
        getting_on = _by(self._able, lambda rider: rider.span.end)
        for at in range(self.want.end - 1, self.want.start - 1, -1):
            on = [(rider, cost) for rider, cost in on if rider.span.start <= at]
            on += [(rider, _NEVER) for rider in getting_on.get(at + 1, ())]
            self.steps += len(on)
            on = [(rider, min(cost, rest[at + 1]) + rider.per_block) for rider, cost in on]
            rest[at] = min(cost + rider.entry for rider, cost in on)
        return rest

    def _promising(self, rest: dict[int, float], most: float) -> list[Rider]:
        """Those that a chain of at most `most` can have in it, seen from both ends."""
        so_far = self._so_far()
        found = []
        for rider in self._riders:
            aboard = least = _NEVER
            for at in rider.span.blocks():
                aboard = min(aboard, so_far[at]) + rider.per_block
                least = min(least, aboard + rest[at + 1])
            self.steps += 1
            if least + rider.entry <= most:
                found.append(rider)
        return found

    def _so_far(self) -> dict[int, float]:
        """What a chain up to each block costs at least."""
        cost = {self.want.start: 0.0}
        on: list[tuple[Rider, float]] = []
        getting_on = _by(self._able, lambda rider: rider.span.start)
        for at in self.want.blocks():
            on = [(rider, before) for rider, before in on if rider.span.end > at]
            on += [(rider, _NEVER) for rider in getting_on.get(at, ())]
            self.steps += len(on)
            on = [(rider, min(before, cost[at] + rider.entry) + rider.per_block) for rider, before in on]
            cost[at + 1] = min(before for _rider, before in on)
        return cost

    def _without_repeats(self, chain: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Walk again, with every node that came twice kept to the longest of its pieces, until none does."""
        riders = list(self._riders)
        while twice := _repeated(chain):
            longest = {
                account: max((p.span for p in chain if p.account == account), key=lambda span: (len(span), -span.start))
                for account in twice
            }
            riders = [r._replace(span=longest[r.account]) if r.account in longest else r for r in riders]
            search = ChainSearch(riders, self.want)
            if search.missing():
                return self._fewest()
            chain = search._walk()
            self.steps += search.steps
        return chain

    def _fewest(self) -> tuple[Piece, ...]:
        """A chain of as few pieces as there can be: always on to the node that goes on furthest."""
        path, stops = [], [self.want.start]
        while stops[-1] < self.want.end:
            here = [rider for rider in self._riders if stops[-1] in rider.span]
            furthest = min(here, key=lambda rider: (-rider.span.end, rider.account))
            path.append(furthest.account)
            stops.append(furthest.span.end)
        return _pieces(path, stops)

    def _points(self, riders: Sequence[Rider]) -> list[int]:
        edges = {edge for rider in riders for edge in (rider.span.start, rider.span.end)}
        return sorted(edges | {self.want.start, self.want.end})


def _by(riders: Collection[Rider], edge: Callable[[Rider], int]) -> dict[int, list[Rider]]:
    found: dict[int, list[Rider]] = {}
    for rider in riders:
        found.setdefault(edge(rider), []).append(rider)
    return found


def _pieces(path: Sequence[Address], stops: Sequence[int]) -> tuple[Piece, ...]:
    spans = [Span(start, stop) for start, stop in itertools.pairwise(stops)]
    return tuple(Piece(account, span) for account, span in zip(path, spans, strict=True))


def _repeated(chain: Sequence[Piece]) -> set[Address]:
    return {account for account, count in Counter(piece.account for piece in chain).items() if count > 1}
