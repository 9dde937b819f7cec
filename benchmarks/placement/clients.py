"""Clients of a placed swarm: the product's `Peers` and router over its announcements, true times from the world."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.placement.world import REGIONS, RTT, SHARES, Node
from corolla.peers import Peers
from corolla.router import HOP_SECONDS, Candidate, Leg, find_route
from corolla.standing import Standing
from corolla_core.protocol.ids import Address, Hash32, ModelRoot
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState

ROOT = ModelRoot(bytes(32))
#: Other nodes that a client connects to ahead of need for each session: its spares, and one by lot.
MET = 12
TOKENS = 32


@dataclass(frozen=True, slots=True)
class Tour:
    """One client, session by session: `seconds` of processor time that `find_route` took; `ratios`, what a token takes
    over its route, as a multiple of the best route for who knows everything; `liars`, the share of its hops that
    exaggerate.
    """

    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    liars: tuple[float, ...]


class Board:
    """What the swarm announces, as a directory."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.announcements = [_announced(node) for node in nodes]

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return self.announcements


def tour(nodes: Sequence[Node], blocks: int, *, sessions: int, seed: int) -> Tour:
    """A new client with so many sessions, one after another, that learns from each."""
    rng = Random(seed)
    region = rng.choices(range(len(REGIONS)), SHARES)[0]
    true = {node.account: node for node in nodes}
    away = {node.account: RTT[region][node.region] + node.away for node in nodes}
    measured: dict[Address, float] = {}
    peers = Peers(
        Board(nodes),
        ROOT,
        blocks,
        rtt=measured.get,
        standing=lambda _account: Standing(score=0.9),
        rng=rng,
    )
    asyncio.run(peers.refresh())
    want = Span(0, blocks)
    everything = [
        Candidate(c.account, c.span, c.price, true[c.account].pace, away[c.account], c.score)
        for c in peers.candidates(tokens=1, wire_dtype="float32")
    ]
    best = _token(find_route(everything, want), true, away)
    seconds, ratios, liars = [], [], []
    for _ in range(sessions):
        candidates = peers.candidates(tokens=1, wire_dtype="float32")
        began = time.process_time()
        legs = find_route(candidates, want)
        seconds.append(time.process_time() - began)
        took = _token(legs, true, away)
        ratios.append(took / best)
        liars.append(sum(true[leg.account].announced > true[leg.account].throughput for leg in legs) / len(legs))
        for account in [leg.account for leg in legs] + [node.account for node in rng.sample(nodes, MET)]:
            measured[account] = away[account]
        for _token_number in range(TOKENS):
            peers.took(legs, took * rng.lognormvariate(0.0, 0.1))
    return Tour(tuple(seconds), tuple(ratios), tuple(liars))


def _token(legs: Sequence[Leg], true: dict[Address, Node], away: dict[Address, float]) -> float:
    """Seconds of one token."""
    return sum(HOP_SECONDS + away[leg.account] / 2 + true[leg.account].pace * len(leg.span) for leg in legs)


def _announced(node: Node) -> Announcement:
    return Announcement(
        network="simulated",
        model_root=ROOT,
        span=node.span,
        account=node.account,
        peer_id="",
        host="127.0.0.1",
        port=1,
        cert_hash=Hash32(bytes(32)),
        price_per_token_block=1,
        numeric_class=NumericClass.BF16,
        wire_dtypes=("float32",),
        throughput=node.announced,
        kv_free_tokens=1000,
        state=NodeState.ONLINE,
        issued_at=0,
        expires_at=60_000,
    )
