"""Which blocks a new node should serve: those the swarm lacks most (the rule of Petals' `choose_best_blocks`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.span import Span


@dataclass(frozen=True, slots=True)
class Served:
    """What one node of the swarm serves, and how fast (any unit, the same for all)."""

    span: Span
    throughput: int


def coverage(total: int, swarm: Iterable[Served]) -> list[int]:
    """Throughput per block of `[0, total)`. A node counts at least 1 wherever it serves, so that a slow one is not
    taken for a gap."""
    per_block = [0] * total
    for served in swarm:
        for block in served.span.blocks():
            if block < total:
                per_block[block] += max(1, served.throughput)
    return per_block


def choose_span(total: int, length: int, swarm: Iterable[Served], *, rng: Random) -> Span:
    """The `length` consecutive blocks of `total` that are served worst.

    Windows are compared by their blocks' throughputs from the worst up, so that an unserved block outweighs anything
    else and more of them outweigh fewer. Among equals `rng` picks, lest nodes that start together choose the same.
    """
    if not 1 <= length <= total:
        raise InvalidInput(f"cannot serve {length} of {total} blocks")
    per_block = coverage(total, swarm)
    windows = [(sorted(per_block[start : start + length]), start) for start in range(total - length + 1)]
    worst = min(windows)[0]
    start = rng.choice([start for throughputs, start in windows if throughputs == worst])
    return Span(start, start + length)
