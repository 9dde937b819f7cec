"""Which blocks a node should serve: those the swarm lacks most, at first (the rule of Petals' `choose_best_blocks`) and
ever after.

Where Petals' `should_choose_other_blocks` lets every server simulate that all the others move, each node here looks at
two figures, what it would leave behind and what it would join, and draws lots so that together they move about as much
as is lacking. It takes one pass over the swarm, and needs no agreement on what the swarm looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.span import Span


@dataclass(frozen=True, slots=True)
class Served:
    """What one node of the swarm serves, and how fast (any unit, the same for all)."""

    span: Span
    throughput: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a swarm serves of each block: `per_block` throughput, `servers` how many nodes.

    `lacking` is what the blocks under the mean lack of it, over all blocks; `movable`, in the same unit, what the nodes
    that may move would bring.
    """

    per_block: Sequence[int]
    servers: Sequence[int]
    lacking: float
    movable: float


def coverage(total: int, swarm: Iterable[Served]) -> list[int]:
    """Throughput per block of `[0, total)`. A node counts at least 1 wherever it serves, so that a slow one is not
    taken for a gap."""
    change = [0] * (total + 1)
    for served in swarm:
        throughput = max(1, served.throughput)
        change[min(served.span.start, total)] += throughput
        change[min(served.span.end, total)] -= throughput
    return list(accumulate(change[:-1]))


def choose_span(total: int, length: int, swarm: Iterable[Served], *, rng: Random) -> Span:
    """The `length` consecutive blocks of `total` that are served worst.

    Windows are compared by their blocks' throughputs from the worst up, so that an unserved block outweighs anything
    else and more of them outweigh fewer. Among equals `rng` picks, lest nodes that start together choose the same.
    """
    if not 1 <= length <= total:
        raise InvalidInput(f"cannot serve {length} of {total} blocks")
    return _worst_served(coverage(total, swarm), length, range(total - length + 1), rng)


def survey(total: int, swarm: Sequence[Served], *, threshold: float) -> Outlook:
    """What `should_move` needs to know. `swarm`: every node that stays, this one included."""
    per_block = coverage(total, swarm)
    servers = coverage(total, (Served(served.span, 1) for served in swarm))
    mean, worst = sum(per_block) / total, min(per_block)
    movable = 0
    for served in swarm:
        mine = max(1, served.throughput)
        if _least(per_block, served.span) - mine > (1 + threshold) * worst and _least(servers, served.span) > 1:
            movable += mine * len(served.span)
    return Outlook(per_block, servers, sum(max(0.0, mean - each) for each in per_block), movable)


def should_move(outlook: Outlook, mine: Served, *, threshold: float, rng: Random) -> Span | None:
    """Where this node should go to raise the throughput of the swarm's worst block, None to stay.

    It goes only if the worst block it leaves keeps more than `1 + threshold` times what the worst block it joins has:
    then the swarm's least cannot get worse, and no two nodes take turns at it for ever. A block's only server stays. Of
    those that may go, about as many do, at one look of each, as it takes to bring what is lacking: every one with the
    probability `lacking / movable`. They spread over the blocks by what each lacks, the unserved before all others.
    """
    throughput, span, total = max(1, mine.throughput), mine.span, len(outlook.per_block)
    if _least(outlook.servers, span) <= 1 or rng.random() * outlook.movable >= outlook.lacking:
        return None
    without = list(outlook.per_block)
    for block in span.blocks():
        without[block] -= throughput
    mean = sum(outlook.per_block) / total
    unserved = [block for block in range(total) if not outlook.servers[block]]
    lacks = [max(0.0, mean - each) for each in without]
    (target,) = [rng.choice(unserved)] if unserved else rng.choices(range(total), lacks)
    starts = range(max(0, target - len(span) + 1), min(target, total - len(span)) + 1)
    there = _worst_served(without, len(span), starts, rng)
    if _least(without, span) <= (1 + threshold) * _least(without, there):
        return None
    return there


def _worst_served(per_block: Sequence[int], length: int, starts: Iterable[int], rng: Random) -> Span:
    windows = [(sorted(per_block[start : start + length]), start) for start in starts]
    worst = min(windows)[0]
    start = rng.choice([start for throughputs, start in windows if throughputs == worst])
    return Span(start, start + length)


def _least(per_block: Sequence[int], span: Span) -> int:
    return min(per_block[span.start : span.end])
