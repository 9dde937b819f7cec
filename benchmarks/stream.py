"""One stream through two nodes, beside plain transformers, accelerate's offloading and Petals."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from benchmarks.effort import Effort
from benchmarks.prompts import Prompts
from benchmarks.record import Record, record
from benchmarks.rivals.petals import petals
from benchmarks.rivals.rival import RivalUnavailable, rival
from benchmarks.swarm import NODES, client_ends, decode_timings, split, swarm, voucher_seconds
from benchmarks.turns import Contestant, Runs, alone, briefly, corolla, first_seconds, take_turns, token_seconds
from corolla.devnet.split import split_evenly
from corolla_core.model.checkpoint import open_checkpoint

OURS, PLAIN, OFFLOADED, PETALS = "two nodes", "plain transformers", "accelerate, offloaded to disk", "Petals"
_TOKENS = 48
_PREFILL = 512
_OFFLOADED_PART = 8


async def stream(checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    """Speeds of all, and where a hop's time goes."""
    prompts = Prompts.for_checkpoint(checkpoint)
    spans = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES)
    async with AsyncExitStack() as stack:
        plain = alone(await stack.enter_async_context(rival("benchmarks.rivals.plain", str(checkpoint))))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="corolla-offload-"))
        offloaded = alone(await stack.enter_async_context(rival("benchmarks.rivals.plain", str(checkpoint), folder)))
        devnet, client = await stack.enter_async_context(swarm(checkpoint, NODES))
        contestants: dict[str, Contestant] = {
            PLAIN: plain,
            OURS: corolla(client),
            OFFLOADED: briefly(offloaded, part=_OFFLOADED_PART),
        }
        try:
            contestants[PETALS] = alone(await stack.enter_async_context(petals(checkpoint, spans)))
        except RivalUnavailable as error:
            out.print(f"no rows about Petals: {error}", markup=False)
        decoding = await take_turns(contestants, [prompts.story()] * (effort.rounds + 1), _TOKENS)
        # Another text every time: nodes remember what a client sent before.
        long = [prompts.passage(_PREFILL, chapter=number) for number in range(effort.rounds + 1)]
        filling = await take_turns(contestants, long, 2)
        timings = [decode_timings(node) for node in devnet.nodes]
        promising = await voucher_seconds(devnet, devnet.folder / "bench.db")
    ends = client_ends(checkpoint)
    ours, base = token_seconds(decoding[OURS]), token_seconds(decoding[PLAIN])
    return [*speeds(decoding, filling, len(long[0].ids)), *split(ours, base, timings, ends=ends, promising=promising)]


def speeds(decoding: Runs, filling: Runs, prompt: int) -> list[Record]:
    """Ours against each of the others."""
    others = [name for name in decoding if name != OURS]
    decode = 1 / token_seconds(decoding[OURS])
    prefill = prompt / first_seconds(filling[OURS])
    return [
        record(f"decode, {OURS}, against {name}", decode, "tok/s", baseline=1 / token_seconds(decoding[name]))
        for name in others
    ] + [
        record(
            f"prefill of {prompt}, {OURS}, against {name}",
            prefill,
            "tok/s",
            baseline=prompt / first_seconds(filling[name]),
        )
        for name in others
    ]
