"""What each further node of a chain costs: the same blocks served by one node, by two, by four, by eight."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from benchmarks.effort import Effort
from benchmarks.prompts import Prompts
from benchmarks.record import Record, record
from benchmarks.rivals.rival import rival
from benchmarks.swarm import swarm
from benchmarks.turns import alone, corolla, take_turns, token_seconds

_TOKENS = 24


async def hops(checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    """A devnet for each length of chain, every one taking turns with plain transformers."""
    story = Prompts.for_checkpoint(checkpoint).story()
    records = []
    async with rival("benchmarks.rivals.plain", str(checkpoint)) as plain:
        for count in effort.hops:
            async with swarm(checkpoint, count) as (_devnet, client):
                contestants = {"plain": alone(plain), "swarm": corolla(client)}
                runs = await take_turns(contestants, [story] * (effort.rounds + 1), _TOKENS)
            records += chain(count, token_seconds(runs["swarm"]), token_seconds(runs["plain"]))
    return records


def chain(count: int, ours: float, base: float) -> list[Record]:
    """Seconds a token in, milliseconds a hop out."""
    nodes = "1 node" if count == 1 else f"{count} nodes"
    return [
        record(f"decode, chain of {nodes}", 1 / ours, "tok/s", baseline=1 / base),
        record(f"overhead a hop, chain of {nodes}", (ours - base) / count * 1e3, "ms"),
    ]
