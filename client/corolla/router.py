"""Which nodes serve which blocks: pure functions of what the nodes announce and how far away they are.

The cost of a hop is the time one token spends there plus what it costs to pay for it, in seconds; the route is the
cheapest chain of hops whose spans join up. A node may serve any part of its span, and serves one part of a route.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median

from corolla.chains import ChainSearch, Rider
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
    accounts. Raises NoRoute with the blocks nobody serves. See `ChainSearch` for when it may be a little dearer.
    """
    preference = preference or Preference()
    usable = sorted((c for c in candidates if c.account not in avoid and c.span.overlaps(want)), key=_identity)
    missing = [b for b in want.blocks() if not any(b in c.span for c in usable)]
    if missing:
        raise NoRoute("nobody serves some of the blocks", missing=missing)
    search = ChainSearch([_cost_line(c, want, preference) for c in usable], want)
    known = {c.account: c for c in usable}
    return tuple(Leg(piece.account, piece.span, known[piece.account].price) for piece in search.best())


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


def _cost_line(candidate: Candidate, want: Span, preference: Preference) -> Rider:
    """`hop_cost` as a line over the part of `want` that the node serves."""
    span = Span(max(candidate.span.start, want.start), min(candidate.span.end, want.end))
    one = hop_cost(candidate, Span(span.start, span.start + 1), preference)
    per_block = candidate.seconds_per_block + preference.seconds_per_unit * candidate.price.of(Span(0, 1), 1)
    return Rider(candidate.account, span, one - per_block, per_block)


def _identity(candidate: Candidate) -> tuple[Address, Span]:
    return candidate.account, candidate.span
