"""The cheapest chain of nodes over a range of blocks, each node at most once, in bounded work.

Costs are linear in blocks, so an optimal chain changes hands only where some node's span begins or ends.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span

#: How many chains begun the exact search may put down; beyond, a good chain has to do.
EFFORT = 3000


@dataclass(frozen=True, slots=True)
class Rider:
    """A node that serves any part of `span`: `entry` once, and `per_block` for every block."""

    account: Address
    span: Span
    entry: float
    per_block: float


@dataclass(frozen=True, slots=True)
class Piece:
    account: Address
    span: Span


class ChainSearch:
    """The riders, in order of account and one of each, must cover every block of `want` and lie within it.

    Where a node may serve two pieces the cheapest chain is a walk along the blocks; mostly it uses none twice, and is
    the answer. Otherwise that walk tells an exact search what the rest of a chain costs at least. A search that takes
    more than `effort` is given up for a chain in which a node serves only the longest of its pieces. `steps` counts.
    """

    def __init__(self, riders: Sequence[Rider], want: Span, *, effort: int = EFFORT) -> None:
        self.steps = 0
        self._riders = riders
        self._want = want
        self._effort = effort

    def best(self) -> tuple[Piece, ...]:
        """The cheapest chain; equal ones are told apart by the number of pieces, then by accounts."""
        chain = self._walk(self._riders)
        if not _repeated(chain):
            return chain
        return self._exact() or self._without_repeats(chain)

    def _walk(self, riders: Sequence[Rider]) -> tuple[Piece, ...]:
        """The cheapest chain if nodes may come twice: for each rider, the best way to be on it so far."""
        points = self._points(riders)
        best: tuple[float, int, tuple[Address, ...], tuple[int, ...]] = (0.0, 0, (), (self._want.start,))
        # Where each rider was best boarded: what that cost, entry included, and the chain before it.
        aboard: dict[Address, tuple[float, int, tuple[Address, ...], tuple[int, ...]]] = {}
        boarding, on = self._boarding(riders), list[Rider]()
        for at, stop in itertools.pairwise(points):
            on = [rider for rider in on if rider.span.end > at] + boarding.get(at, [])
            cost, hops, path, stops = best
            ahead = []
            for rider in on:
                self.steps += 1
                before = aboard.get(rider.account)
                fresh = cost + rider.entry
                # Getting off and on again never pays.
                if before is None or (
                    path[-1] != rider.account and (fresh, hops) < (_ridden(before, rider, at), before[1])
                ):
                    before = aboard[rider.account] = (fresh, hops, path, stops)
                ahead.append((_ridden(before, rider, stop), before[1] + 1, rider.account))
            total, hops, account = min(ahead)
            _cost, _hops, path, stops = aboard[account]
            best = (total, hops, (*path, account), (*stops, stop))
        return _pieces(best[2], best[3])

    def _exact(self) -> tuple[Piece, ...] | None:
        """Best-first by what a chain begun will cost at least; None when that takes more than the effort allowed."""
        points = self._points(self._riders)
        rest = self._at_least(points)
        spans = {rider.account: rider.span for rider in self._riders}
        start = self._want.start
        queue: list[tuple[float, int, tuple[Address, ...], tuple[int, ...], float]] = [
            (rest[start], 0, (), (start,), 0.0)
        ]
        settled: dict[int, list[tuple[frozenset[Address], float]]] = {point: [] for point in points}
        pushed = 0
        while queue:
            _bound, hops, path, stops, cost = heapq.heappop(queue)
            at = stops[-1]
            if at == self._want.end:
                return _pieces(path, stops)
            # Dominated by a chain as cheap that has used no node that still matters besides those this one has.
            used = frozenset(account for account in path if spans[account].end > at)
            if any(others <= used and cheaper <= cost for others, cheaper in settled[at]):
                continue
            settled[at].append((used, cost))
            for rider in self._riders:
                if not rider.span.start <= at < rider.span.end or rider.account in path:
                    continue
                for stop in points:
                    if at < stop <= rider.span.end:
                        total = cost + rider.entry + rider.per_block * (stop - at)
                        entry = (total + rest[stop], hops + 1, (*path, rider.account), (*stops, stop), total)
                        heapq.heappush(queue, entry)
                        pushed += 1
                        self.steps += 1
            if pushed > self._effort:
                return None
        return None

    def _at_least(self, points: Sequence[int]) -> dict[int, float]:
        """What the rest of a chain costs at least from each point: the walk, from the other end."""
        rest = {points[-1]: 0.0}
        aboard: dict[Address, float] = {}
        for at, stop in reversed(list(itertools.pairwise(points))):
            costs = []
            for rider in self._riders:
                if rider.span.start <= at and stop <= rider.span.end:
                    self.steps += 1
                    on = min(aboard.get(rider.account, float("inf")), rest[stop]) + rider.per_block * (stop - at)
                    aboard[rider.account] = on
                    costs.append(on + rider.entry)
            rest[at] = min(costs)
        return rest

    def _without_repeats(self, chain: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Walk again, with every node that came twice kept to the longest of its pieces, until none does."""
        riders = list(self._riders)
        while twice := _repeated(chain):
            longest = {
                account: max((p.span for p in chain if p.account == account), key=lambda span: (len(span), -span.start))
                for account in twice
            }
            riders = [replace(r, span=longest.get(r.account, r.span)) for r in riders]
            if any(not any(block in rider.span for rider in riders) for block in self._want.blocks()):
                return self._fewest()
            chain = self._walk(riders)
        return chain

    def _fewest(self) -> tuple[Piece, ...]:
        """A chain of as few pieces as there can be: always on to the node that goes on furthest."""
        path, stops = [], [self._want.start]
        while stops[-1] < self._want.end:
            here = [rider for rider in self._riders if stops[-1] in rider.span]
            furthest = max(here, key=lambda rider: rider.span.end)
            path.append(furthest.account)
            stops.append(furthest.span.end)
        return _pieces(path, stops)

    def _points(self, riders: Sequence[Rider]) -> list[int]:
        edges = {edge for rider in riders for edge in (rider.span.start, rider.span.end)}
        return sorted(edges | {self._want.start, self._want.end})

    @staticmethod
    def _boarding(riders: Sequence[Rider]) -> dict[int, list[Rider]]:
        boarding: dict[int, list[Rider]] = {}
        for rider in riders:
            boarding.setdefault(rider.span.start, []).append(rider)
        return boarding


def _ridden(boarded: tuple[float, int, tuple[Address, ...], tuple[int, ...]], rider: Rider, to: int) -> float:
    cost, _hops, _path, stops = boarded
    return cost + rider.per_block * (to - stops[-1])


def _pieces(path: Sequence[Address], stops: Sequence[int]) -> tuple[Piece, ...]:
    spans = [Span(start, stop) for start, stop in itertools.pairwise(stops)]
    return tuple(Piece(account, span) for account, span in zip(path, spans, strict=True))


def _repeated(chain: Sequence[Piece]) -> set[Address]:
    return {account for account, count in Counter(piece.account for piece in chain).items() if count > 1}
