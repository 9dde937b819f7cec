"""Clients choose as the product's router does: the cheapest node of each stage by `hop_cost`, among those with room."""

from __future__ import annotations

import numpy as np

from benchmarks.market.population import Bools, Floats, Ints, Population
from corolla.router import Candidate, Preference, hop_cost
from corolla.standing import NEUTRAL_SCORE
from corolla_core.protocol.ids import Address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.span import Span

_FULL, _BEYOND = 1e9, 1e12
"""Seconds beyond any hop's, reluctance included."""


class Offers:
    """What each node costs a client, as of the scores last settled: `plain + slope × rtt`, and for a newcomer, in the
    sessions whose turn it is not, `reserve` more."""

    def __init__(self, nodes: Population) -> None:
        self.plain, self.slope, self.reserve = (np.zeros(len(nodes.stake)) for _ in range(3))
        rows = range(nodes.count)
        self.preference = Preference.balanced([candidate(nodes, row) for row in rows], nodes.rules.price_importance)
        for row in rows:
            self.add(nodes, row)

    def add(self, nodes: Population, row: int) -> None:
        span = Span(0, nodes.rules.blocks)
        self.plain[row] = hop_cost(candidate(nodes, row), span, self.preference)
        self.slope[row] = hop_cost(candidate(nodes, row, rtt=1.0), span, self.preference) - self.plain[row]
        if np.isnan(nodes.score[row]):
            reserved = hop_cost(candidate(nodes, row, in_reserve=True), span, self.preference)
            self.reserve[row] = reserved - self.plain[row]


class Clients:
    """Where they are, and of which nodes each has measured the round trip. `rtt`: (clients, nodes), true seconds."""

    def __init__(self, nodes: Population, rng: np.random.Generator) -> None:
        rules = nodes.rules
        self.rng, self._leaves, self._across = rng, rules.client_leaves, rules.across
        self._unmeasured = rules.unmeasured
        self.place = rng.random((rules.clients, 2))
        self.rtt = self._far(self.place, nodes.place)
        self.measured: Bools = np.zeros(self.rtt.shape, np.bool_)

    def change(self, nodes: Population) -> None:
        """Some leave; others come, who know nobody."""
        gone = self.rng.random(len(self.place)) < self._leaves
        self.place[gone] = self.rng.random((int(gone.sum()), 2))
        self.measured[gone] = False
        self.rtt[gone] = self._far(self.place[gone], nodes.place)

    def meet(self, nodes: Population, row: int) -> None:
        """A node is new."""
        self.rtt[:, row] = self._far(self.place, nodes.place[row : row + 1])[:, 0]

    def believed(self, here: Ints) -> Floats:
        """(clients, here): how far off each client holds these nodes to be."""
        seconds: Floats = np.where(self.measured[:, here], self.rtt[:, here], self._unmeasured)
        return seconds

    def look_around(self, nodes: Population, who: Ints, serving: Bools) -> None:
        """Each measures one node by stake, as the product's `Peers.by_lot` draws it, whether or not it knows it."""
        tickets = np.cumsum(np.where(serving, nodes.stake, 0))
        self.measured[who, np.searchsorted(tickets, self.rng.random(len(who)) * tickets[-1], side="right")] = True

    def _far(self, clients: Floats, nodes: Floats) -> Floats:
        apart = clients[:, None, :] - nodes[None, :, :]
        seconds: Floats = self._across * np.sqrt((apart**2).sum(axis=2))
        return seconds


def route(nodes: Population, clients: Clients, offers: Offers, epoch: int) -> Ints:
    """The node of each stage for each session: (stages, sessions).

    One session after another takes the cheapest node whose machine has room, or without any the cheapest. Its client
    measures that one, the next best, which it keeps warm as a spare, and one by lot.
    """
    rules, rng = nodes.rules, clients.rng
    who = rng.integers(rules.clients, size=rules.sessions)
    reserved = rng.random(rules.sessions) >= rules.terms.newcomer_share
    serving = nodes.serving(epoch)
    chosen = np.empty((rules.stages, rules.sessions), np.int64)
    for stage in range(rules.stages):
        here = np.nonzero(serving & (nodes.stage == stage))[0]
        open_to_all = offers.plain[here] + offers.slope[here] * clients.believed(here)
        otherwise = open_to_all + offers.reserve[here]
        machines, taken = nodes.machine[here], np.zeros(nodes.machines, np.int64)
        full = np.zeros(len(here))
        for session, client in enumerate(who):
            costs = (otherwise if reserved[session] else open_to_all)[client] + full
            best = int(costs.argmin())
            costs[best] = _BEYOND
            chosen[stage, session] = here[best]
            clients.measured[client, here[best]] = clients.measured[client, here[costs.argmin()]] = True
            taken[machines[best]] += 1
            if taken[machines[best]] == rules.capacity:
                full[machines == machines[best]] = _FULL
    clients.look_around(nodes, who, serving)
    return chosen


def candidate(nodes: Population, row: int, *, rtt: float = 0.0, in_reserve: bool = False) -> Candidate:
    """A node as the router sees it."""
    score = float(nodes.score[row])
    return Candidate(
        account=Address(f"0x{row:040x}"),
        span=Span(0, nodes.rules.blocks),
        price=Price(int(nodes.price[row])),
        seconds_per_block=float(nodes.pace[row]),
        rtt=rtt,
        score=NEUTRAL_SCORE if np.isnan(score) else score,
        in_reserve=in_reserve,
    )
