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
        if self.score < BAD_SCORE:
            return BAD_RELUCTANCE
        return NEWCOMER_RELUCTANCE if self.in_reserve else 0.0


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
    usable = [c for c in candidates if c.account not in avoid and c.span.overlaps(want)]
    for most in (0.0, NEWCOMER_RELUCTANCE, BAD_RELUCTANCE):
        pool = [c for c in usable if c.reluctance <= most]
        riders = _cost_lines(pool, want, preference)
        search = ChainSearch(riders, want)
        missing = search.missing()
        if not missing:
            return _spread(search, riders, {c.account: c for c in pool}, preference)
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


def _spread(
    search: ChainSearch, riders: Sequence[Rider], known: Mapping[Address, Candidate], preference: Preference
) -> tuple[Leg, ...]:
    """The cheapest route; then others, with one node for each owner and block, and with more owners as long as they are
    nearly as cheap."""
    owned: dict[Address, list[Candidate]] = {}
    for c in known.values():
        if c.owner is not None:
            owned.setdefault(c.owner, []).append(c)
    legs = _cheapest(search, known)
    most = NEARLY_EQUAL * _cost(legs, known, preference)
    for _ in range(_ROUNDS):
        twice = _twins(legs, known, owned)
        others = twice or _kin(legs, known, owned)
        if not others:
            break
        rest = [rider for rider in riders if rider.account not in others]
        search = ChainSearch(rest, search.want)
        if search.missing():
            break
        other = _cheapest(search, known)
        cost = _cost(other, known, preference)
        if twice:
            most = max(most, NEARLY_EQUAL * cost)
        elif cost > most:
            break
        riders, legs = rest, other
    return legs


def _cheapest(search: ChainSearch, known: Mapping[Address, Candidate]) -> tuple[Leg, ...]:
    return tuple(Leg(piece.account, piece.span, known[piece.account].price) for piece in search.best())


def _cost(legs: Sequence[Leg], known: Mapping[Address, Candidate], preference: Preference) -> float:
    return sum(hop_cost(known[leg.account], leg.span, preference) for leg in legs)


def _twins(
    legs: Sequence[Leg], known: Mapping[Address, Candidate], owned: Mapping[Address, Sequence[Candidate]]
) -> set[Address]:
    """Where a route has two of an owner's nodes over the same blocks: all its nodes there but the one that does most of
    it."""
    found: set[Address] = set()
    for leg in _largest_first(legs):
        one = known[leg.account]
        if one.account not in found and any(_rivals(one, known[other.account]) for other in legs):
            found |= {c.account for c in _owners(one, owned) if _rivals(one, c)}
    return found


def _kin(
    legs: Sequence[Leg], known: Mapping[Address, Candidate], owned: Mapping[Address, Sequence[Candidate]]
) -> set[Address]:
    """All other nodes of the first owner that has more than one leg."""
    for leg in _largest_first(legs):
        one = known[leg.account]
        if any(known[other.account].owner == one.owner and other is not leg for other in legs):
            others = {c.account for c in _owners(one, owned)} - {one.account}
            if others:
                return others
    return set()


def _owners(one: Candidate, owned: Mapping[Address, Sequence[Candidate]]) -> Sequence[Candidate]:
    """All nodes of its owner, where that is known."""
    return owned.get(one.owner, ()) if one.owner is not None else ()


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


def _cost_lines(pool: Sequence[Candidate], want: Span, preference: Preference) -> list[Rider]:
    """`hop_cost` as a line over the part of `want` that each node serves."""
    unit, riders = preference.seconds_per_unit, []
    for c in pool:
        span = c.span
        if span.start < want.start or span.end > want.end:
            span = Span(max(span.start, want.start), min(span.end, want.end))
        risk = risk_factor(c.score)
        per_block = risk * (c.seconds_per_block + unit * c.price.per_token_block) + c.reluctance
        riders.append(Rider(c.account, span, risk * (HOP_SECONDS + c.rtt / 2), per_block))
    return riders
