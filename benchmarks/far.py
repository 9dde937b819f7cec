"""Two nodes far from the client and from each other, beside Petals over the same lines."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from benchmarks.effort import Effort
from benchmarks.prompts import Prompts
from benchmarks.record import Record, record
from benchmarks.rivals.petals import petals
from benchmarks.rivals.rival import RivalUnavailable, rival
from benchmarks.swarm import NODES, swarm
from benchmarks.turns import Contestant, Runs, alone, corolla, take_turns, token_seconds
from benchmarks.wan import Wan
from corolla.devnet.split import split_evenly
from corolla_core.model.checkpoint import open_checkpoint

OURS, PLAIN, PETALS = "two nodes", "plain transformers", "Petals"
_TOKENS = 24
_LINKS = (NODES + 1) / 2
"""Round trips that a token takes: from the client to each node in turn and back."""


async def far(checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    """A swarm of each kind for every latency."""
    story = Prompts.for_checkpoint(checkpoint).story()
    spans = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES)
    records = []
    async with rival("benchmarks.rivals.plain", str(checkpoint)) as plain:
        for latency in effort.latencies:
            wan = Wan(latency / 1e3)
            async with AsyncExitStack() as stack:
                _devnet, client = await stack.enter_async_context(swarm(checkpoint, NODES, wan=wan))
                contestants: dict[str, Contestant] = {PLAIN: alone(plain), OURS: corolla(client)}
                try:
                    contestants[PETALS] = alone(await stack.enter_async_context(petals(checkpoint, spans, wan)))
                except RivalUnavailable as error:
                    out.print(f"no row about Petals: {error}", markup=False)
                runs = await take_turns(contestants, [story] * (effort.rounds + 1), _TOKENS)
            records += distances(wan, runs)
    return records


def distances(wan: Wan, runs: Runs) -> list[Record]:
    """Against Petals, and against what nothing can beat that asks for one token at a time: compute and the lines."""
    speed = 1 / token_seconds(runs[OURS])
    name = f"decode, {OURS}, {wan}"
    least = token_seconds(runs[PLAIN]) + _LINKS * wan.rtt
    records = [record(f"{name}, against plain and {_LINKS:g} round trips a token", speed, "tok/s", baseline=1 / least)]
    if PETALS in runs:
        records.append(record(f"{name}, against {PETALS}", speed, "tok/s", baseline=1 / token_seconds(runs[PETALS])))
    return records
