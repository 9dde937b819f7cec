"""Which nodes serve which blocks: pure functions of what the nodes announce and how far away they are.

The cost of a hop is the time one token spends there plus what it costs to pay for it, in seconds; the route is the
cheapest chain of hops whose spans join up. A node may serve any part of its span, and serves one part of a route.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

from corolla_core.protocol.errors import NoRoute
from corolla_core.protocol.ids import Address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.span import Span

#: What a hop costs beyond computing and the wire: scheduling and framing, measured at about a millisecond.
HOP_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as the router sees it. `rtt` is seconds from here and back."""

    account: Address
    span: Span
    price: Price
    seconds_per_block: float
    rtt: float = 0.0


@dataclass(frozen=True, slots=True)
class Leg:
    """One hop of a route: `account` serves exactly `span`."""

    account: Address
    span: Span
    price: Price


@dataclass(frozen=True, slots=True)
class Preference:
    """How a hop's price counts: `seconds_per_unit` seconds for each base unit paid per token."""

    seconds_per_unit: float = 0.0

    @classmethod
    def balanced(cls, candidates: Collection[Candidate], importance: float) -> Preference:
        """`importance` 0.5: costing twice the median counts like being half as slow again as the median."""
        prices = [c.price.per_token_block for c in candidates if c.price.per_token_block]
        if not prices or importance <= 0:
            return cls()
        return cls(importance * median(c.seconds_per_block for c in candidates) / median(prices))


def hop_cost(candidate: Candidate, span: Span, preference: Preference) -> float:
    """Seconds for one token through `span` at this node, its price included."""
    price = preference.seconds_per_unit * candidate.price.of(span, 1)
    return HOP_SECONDS + candidate.rtt / 2 + candidate.seconds_per_block * len(span) + price


def find_route(
    candidates: Sequence[Candidate],
    want: Span,
    *,
    preference: Preference | None = None,
    avoid: Collection[Address] = (),
) -> tuple[Leg, ...]:
    """The cheapest chain that covers `want` exactly, each node at most once; equal chains are told apart by hops, then
    accounts. Raises NoRoute with the blocks nobody serves.

    Costs are linear in blocks, so an optimal chain changes hands only where some candidate's span begins or ends.
    """
    preference = preference or Preference()
    usable = sorted((c for c in candidates if c.account not in avoid and c.span.overlaps(want)), key=_identity)
    missing = [b for b in want.blocks() if not any(b in c.span for c in usable)]
    if missing:
        raise NoRoute("nobody serves some of the blocks", missing=missing)
    edges = {edge for c in usable for edge in (c.span.start, c.span.end) if edge in want}
    points = sorted(edges | {want.start, want.end})
    # Uniform-cost search. A label is dominated when a cheaper one at the same point has used no node that still
    # matters (one whose span goes on beyond the point) besides those the label has used too.
    queue: list[tuple[float, int, tuple[Address, ...], tuple[int, ...]]] = [(0.0, 0, (), (want.start,))]
    settled: dict[int, list[frozenset[Address]]] = {point: [] for point in points}
    known = {c.account: c for c in usable}
    while queue:
        cost, hops, path, stops = heapq.heappop(queue)
        point = stops[-1]
        if point == want.end:
            spans = [Span(start, stop) for start, stop in itertools.pairwise(stops)]
            return tuple(Leg(a, span, known[a].price) for a, span in zip(path, spans, strict=True))
        used = frozenset(account for account in path if known[account].span.end > point)
        if any(cheaper <= used for cheaper in settled[point]):
            continue
        settled[point].append(used)
        for c in known.values():
            if c.span.start <= point < c.span.end and c.account not in path:
                for stop in points:
                    if point < stop <= c.span.end:
                        total = cost + hop_cost(c, Span(point, stop), preference)
                        heapq.heappush(queue, (total, hops + 1, (*path, c.account), (*stops, stop)))
    raise NoRoute("no chain of nodes joins up", missing=list(want.blocks()))


def find_spares(
    candidates: Sequence[Candidate],
    route: Sequence[Leg],
    *,
    depth: int = 2,
    preference: Preference | None = None,
    avoid: Collection[Address] = (),
) -> list[list[tuple[Leg, ...]]]:
    """For every leg, up to `depth` chains of other nodes that could replace it, best first, no node in two of them."""
    busy = {leg.account for leg in route} | set(avoid)
    spares: list[list[tuple[Leg, ...]]] = []
    for leg in route:
        chains: list[tuple[Leg, ...]] = []
        taken: set[Address] = set()
        while len(chains) < depth:
            try:
                chain = find_route(candidates, leg.span, preference=preference, avoid=busy | taken)
            except NoRoute:
                break
            chains.append(chain)
            taken |= {spare.account for spare in chain}
        spares.append(chains)
    return spares


def _identity(candidate: Candidate) -> tuple[Address, Span]:
    return candidate.account, candidate.span
