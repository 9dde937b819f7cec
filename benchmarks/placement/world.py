"""Nodes come, look where they are needed, move, and vanish: one step of simulated time after another.

Everything is decided by the product's code (`choose_span`, `survey`, `should_move`, the bound on what is believed); the
world only says who there is, who dies, and how long a move takes. Throughputs are thousandths of a token a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span
from corolla_core.swarm.plausible import MOST_TIMES_MEDIAN
from corolla_node.block_choice import Outlook, Served, choose_span, coverage, should_move, survey

REGIONS = ("na-east", "na-west", "europe", "asia", "south-america", "oceania")
SHARES = (0.25, 0.2, 0.25, 0.2, 0.06, 0.04)
#: Seconds there and back between regions.
RTT = (
    (0.010, 0.065, 0.085, 0.200, 0.120, 0.210),
    (0.065, 0.010, 0.140, 0.130, 0.170, 0.150),
    (0.085, 0.140, 0.010, 0.180, 0.190, 0.270),
    (0.200, 0.130, 0.180, 0.020, 0.300, 0.110),
    (0.120, 0.170, 0.190, 0.300, 0.015, 0.300),
    (0.210, 0.150, 0.270, 0.110, 0.300, 0.015),
)
_PAYS_AFTER = 10.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Times are seconds. `stay`: how long a node stays on average. `stale`: how long a dead node is still announced.
    `drain` and `load_block`: what a move takes, at once and for each block (3.2 GB at 160 MB/s). `fixed`: the share
    whose operators chose their blocks; `liars`: the share that announces a hundred times its throughput."""

    nodes: int = 10_000
    blocks: int = 126
    stay: float = 6 * 3600.0
    step: float = 60.0
    interval: float = 300.0
    threshold: float = 0.2
    stale: float = 60.0
    drain: float = 60.0
    load_block: float = 20.0
    fixed: float = 0.1
    liars: float = 0.0
    rebalance: bool = True


@dataclass(slots=True, eq=False)
class Node:
    """`pace`: seconds a block. `away`: seconds that its own line adds to a round trip. It serves from `serves_at` on,
    and is announced until `forgotten_at`."""

    account: Address
    region: int
    pace: float
    away: float
    announced: int
    throughput: int
    fixed: bool
    span: Span
    serves_at: float
    load: float
    looks_at: float
    dead_at: float | None = None


@dataclass(slots=True)
class Moment:
    """`least` is the worst block's true throughput, `bound` what no placement of those nodes could exceed."""

    hours: float
    nodes: int
    least: int
    bound: float
    unserved: int
    moves: int
    looked: int


@dataclass(frozen=True, slots=True)
class Shock:
    """At `hours` every node for which `hits` says so vanishes."""

    hours: float
    name: str
    hits: Callable[[Node, Random], bool]


@dataclass(slots=True)
class World:
    """The same seed and rules give the same history."""

    rules: Rules
    seed: int
    now: float = 0.0
    nodes: list[Node] = field(default_factory=list)
    history: list[Moment] = field(default_factory=list)
    _count: int = 0
    _rng: Random = field(init=False)

    def __post_init__(self) -> None:
        self._rng = Random(self.seed)
        per_block = [0] * self.rules.blocks
        for _ in range(self.rules.nodes):
            self._join(per_block)
        for node in self.nodes:
            node.serves_at = 0.0

    def run(self, hours: float, shocks: tuple[Shock, ...] = ()) -> World:
        pending = sorted(shocks, key=lambda shock: shock.hours)
        while self.now < hours * 3600:
            self.now += self.rules.step
            while pending and pending[0].hours * 3600 <= self.now:
                shock = pending.pop(0)
                self._vanish([n for n in self._living() if shock.hits(n, self._rng)])
            self._churn()
            moves, looked = self._rebalance() if self.rules.rebalance else (0, 0)
            self._note(moves, looked)
        return self

    def _living(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.dead_at is None)

    def _vanish(self, gone: list[Node]) -> None:
        for node in gone:
            node.dead_at = self.now

    def _churn(self) -> None:
        rules = self.rules
        chance = rules.step / rules.stay
        self._vanish([node for node in self._living() if self._rng.random() < chance])
        self.nodes = [n for n in self.nodes if n.dead_at is None or self.now - n.dead_at < rules.stale]
        per_block = coverage(rules.blocks, self._served())
        for _ in range(self._poisson(rules.nodes * chance)):
            self._join(per_block)

    def _rebalance(self) -> tuple[int, int]:
        """All that look in one step see the same swarm: none of them knows where the others of it go."""
        rules, outlook = self.rules, self.outlook()
        moves = looked = 0
        for node in self.nodes:
            if node.dead_at is not None or node.fixed or node.looks_at > self.now:
                continue
            node.looks_at = self.now + rules.interval * self._rng.uniform(0.5, 1.5)
            if self.now - node.serves_at < _PAYS_AFTER * node.load:
                continue
            looked += 1
            mine = Served(node.span, self._believed(node))
            there = should_move(outlook, mine, threshold=rules.threshold, rng=self._rng)
            if there is not None:
                node.span, node.serves_at = there, self.now + rules.drain + node.load
                moves += 1
        return moves, looked

    def outlook(self) -> Outlook:
        """What a lookup shows: nodes that load count, and so do those that died a moment ago."""
        return survey(self.rules.blocks, self._served(), threshold=self.rules.threshold)

    def _served(self) -> list[Served]:
        return [Served(node.span, self._believed(node)) for node in self.nodes]

    def serving(self) -> list[Node]:
        return [node for node in self._living() if node.serves_at <= self.now]

    def _believed(self, node: Node) -> int:
        return round(min(node.announced, MOST_TIMES_MEDIAN * _MEDIAN_RATE / len(node.span)))

    def _note(self, moves: int, looked: int) -> None:
        per_block = coverage(self.rules.blocks, (Served(node.span, node.throughput) for node in self.serving()))
        living = list(self._living())
        capacity = sum(node.throughput * len(node.span) for node in living)
        self.history.append(
            Moment(
                self.now / 3600,
                len(living),
                min(per_block),
                capacity / self.rules.blocks,
                per_block.count(0),
                moves,
                looked,
            )
        )

    def _join(self, per_block: list[int]) -> None:
        """A node comes, and chooses what it sees to be lacking."""
        rules, rng = self.rules, self._rng
        length = max(1, min(rules.blocks, 40, round(rng.lognormvariate(1.8, 0.7))))
        pace = _MEDIAN_PACE * rng.lognormvariate(0.0, 0.8)
        throughput = max(1, round(1000 / pace / length))
        announced = throughput * 100 if rng.random() < rules.liars else throughput
        seen = [Served(Span(block, block + 1), each) for block, each in enumerate(per_block) if each]
        span = choose_span(rules.blocks, length, seen, rng=rng)
        self._count += 1
        load = rules.load_block * length
        node = Node(
            account=Address(f"0x{self._count:040x}"),
            region=rng.choices(range(len(REGIONS)), SHARES)[0],
            pace=pace,
            away=min(0.5, rng.lognormvariate(-4.6, 0.9)),
            announced=announced,
            throughput=throughput,
            fixed=rng.random() < rules.fixed,
            span=span,
            serves_at=self.now + load,
            load=load,
            looks_at=self.now + rules.interval * rng.uniform(0.0, 1.5),
        )
        self.nodes.append(node)
        for block in span.blocks():
            per_block[block] += self._believed(node)

    def _poisson(self, mean: float) -> int:
        count, left = 0, self._rng.expovariate(1.0)
        while left < mean:
            count += 1
            left += self._rng.expovariate(1.0)
        return count


_MEDIAN_PACE = 0.005
_MEDIAN_RATE = 1000 / _MEDIAN_PACE
