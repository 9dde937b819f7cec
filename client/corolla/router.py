"""Which nodes serve which blocks: pure functions of what the nodes announce and how far away they are.

The cost of a hop is the time one token spends there plus what it costs to pay for it, in seconds, times the risk that
it must be done again; the route is the cheapest chain of hops whose spans join up. A node may serve any part of its
span, and serves one part of a route. An owner's nodes over the same blocks count as one: many gain it nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from corolla.chains import ChainSearch, Rider
from corolla.standing import BAD_RELUCTANCE, BAD_SCORE, NEWCOMER_RELUCTANCE, risk_factor
from corolla_core.protocol.errors import NoRoute
from corolla_core.protocol.ids import Address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.span import Span

#: What a hop costs beyond computing and the wire: scheduling and framing, measured at about a millisecond.
HOP_SECONDS = 0.001
#: How much dearer a route may be for having more owners: what fails together should not be a whole route.
NEARLY_EQUAL = 1.05
#: How often a route is looked for again for the sake of its owners.
_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as the router sees it. `rtt` is seconds from here and back, `score` its reputation in [0, 1], `owner`
    whose stake is behind it. A newcomer whose turn it is not is `in_reserve`: used only where nobody else serves."""

    account: Address
    span: Span
    price: Price
    seconds_per_block: float
    rtt: float = 0.0
    score: float = 1.0
    owner: Address | None = None
    in_reserve: bool = False

    @property
    def bad(self) -> bool:
        return self.score < BAD_SCORE

    @property
    def reluctance(self) -> float:
        """Seconds that each block at this node counts as more."""
        return BAD_RELUCTANCE if self.bad else NEWCOMER_RELUCTANCE if self.in_reserve else 0.0


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
    """Seconds for one token through `span` at this node, its price, its risk and the reluctance to use it included."""
    price = preference.seconds_per_unit * candidate.price.of(span, 1)
    plain = HOP_SECONDS + candidate.rtt / 2 + candidate.seconds_per_block * len(span) + price
    return risk_factor(candidate.score) * plain + candidate.reluctance * len(span)


def find_route(
    candidates: Sequence[Candidate],
    want: Span,
    *,
    preference: Preference | None = None,
    avoid: Collection[Address] = (),
) -> tuple[Leg, ...]:
    """The cheapest chain that covers `want` exactly, each node at most once; equal chains are told apart by hops, then
    accounts. Raises NoRoute with the blocks nobody serves. See `ChainSearch` for when it may be a little dearer.

    Bad nodes, and then those in reserve, are used only for want of others. Of an owner's nodes over the same blocks one
    is used where that leaves a route, and of a route nearly as cheap the one with more owners.
    """
    preference = preference or Preference()
    usable = sorted((c for c in candidates if c.account not in avoid and c.span.overlaps(want)), key=_identity)
    for most in (0.0, NEWCOMER_RELUCTANCE, BAD_RELUCTANCE):
        pool = [c for c in usable if c.reluctance <= most]
        missing = _missing(pool, want)
        if not missing:
            return _spread(pool, want, preference)
    raise NoRoute("nobody serves some of the blocks", missing=missing)


def find_spares(
    candidates: Sequence[Candidate],
    route: Sequence[Leg],
    *,
    depth: int = 2,
    preference: Preference | None = None,
    avoid: Collection[Address] = (),
) -> list[list[tuple[Leg, ...]]]:
    """For every leg, up to `depth` chains of other nodes that could replace it, best first, no node in two of them; of
    other owners where there are any, for an owner's nodes may fail together."""
    busy = {leg.account for leg in route} | set(avoid)
    owners = {c.account: c.owner for c in candidates}
    spares: list[list[tuple[Leg, ...]]] = []
    for leg in route:
        chains: list[tuple[Leg, ...]] = []
        taken: set[Address] = set()
        owner = owners.get(leg.account)
        kin = {account for account, other in owners.items() if owner is not None and other == owner}
        while len(chains) < depth:
            try:
                chain = find_route(candidates, leg.span, preference=preference, avoid=busy | taken | kin)
            except NoRoute:
                if not kin:
                    break
                kin = set()
                continue
            chains.append(chain)
            taken |= {spare.account for spare in chain}
        spares.append(chains)
    return spares


def _missing(candidates: Sequence[Candidate], want: Span) -> list[int]:
    return [b for b in want.blocks() if not any(b in c.span for c in candidates)]


def _spread(pool: Sequence[Candidate], want: Span, preference: Preference) -> tuple[Leg, ...]:
    """The cheapest route; then others, with one node for each owner and block, and with more owners as long as they are
    nearly as cheap."""
    known = {c.account: c for c in pool}
    legs = _cheapest(pool, want, preference)
    most = NEARLY_EQUAL * _cost(legs, known, preference)
    for _ in range(_ROUNDS):
        twice = _twins(legs, known)
        rest = [c for c in pool if c.account not in (twice or _kin(legs, known))]
        if len(rest) == len(pool) or _missing(rest, want):
            break
        other = _cheapest(rest, want, preference)
        cost = _cost(other, known, preference)
        if twice:
            most = max(most, NEARLY_EQUAL * cost)
        elif cost > most:
            break
        pool, legs = rest, other
    return legs


def _cheapest(pool: Sequence[Candidate], want: Span, preference: Preference) -> tuple[Leg, ...]:
    search = ChainSearch([_cost_line(c, want, preference) for c in pool], want)
    prices = {c.account: c.price for c in pool}
    return tuple(Leg(piece.account, piece.span, prices[piece.account]) for piece in search.best())


def _cost(legs: Sequence[Leg], known: Mapping[Address, Candidate], preference: Preference) -> float:
    return sum(hop_cost(known[leg.account], leg.span, preference) for leg in legs)


def _twins(legs: Sequence[Leg], known: Mapping[Address, Candidate]) -> set[Address]:
    """Where a route has two of an owner's nodes over the same blocks: all its nodes there but the one that does most of
    it."""
    found: set[Address] = set()
    for leg in _largest_first(legs):
        one = known[leg.account]
        if one.account not in found and any(_rivals(one, known[other.account]) for other in legs):
            found |= {c.account for c in known.values() if _rivals(one, c)}
    return found


def _kin(legs: Sequence[Leg], known: Mapping[Address, Candidate]) -> set[Address]:
    """All other nodes of the first owner that has more than one leg."""
    for leg in _largest_first(legs):
        one = known[leg.account]
        others = {c.account for c in known.values() if c.account != one.account and c.owner == one.owner}
        if one.owner is not None and any(other.account in others for other in legs):
            return others
    return set()


def _largest_first(legs: Sequence[Leg]) -> list[Leg]:
    return sorted(legs, key=lambda leg: (-len(leg.span), leg.span.start))


def _rivals(one: Candidate, other: Candidate) -> bool:
    """Whether both are one owner's nodes over the same blocks."""
    return (
        one.owner is not None
        and one.owner == other.owner
        and one.account != other.account
        and one.span.overlaps(other.span)
    )


def _cost_line(candidate: Candidate, want: Span, preference: Preference) -> Rider:
    """`hop_cost` as a line over the part of `want` that the node serves."""
    span = Span(max(candidate.span.start, want.start), min(candidate.span.end, want.end))
    one = hop_cost(candidate, Span(span.start, span.start + 1), preference)
    plain = candidate.seconds_per_block + preference.seconds_per_unit * candidate.price.of(Span(0, 1), 1)
    per_block = risk_factor(candidate.score) * plain + candidate.reluctance
    return Rider(candidate.account, span, one - per_block, per_block)


def _identity(candidate: Candidate) -> tuple[Address, Span]:
    return candidate.account, candidate.span
