"""Prompts through 1, 2 and 3 nodes: cut as the client cuts them, and in steps of fixed sizes (nodes take 128 at most).

    python -m benchmarks.prefill [--nodes 2] [--rtt 0.05] [--tokens 512] [--sizes 16 32 64 128] [--rounds 3]

Every round takes each way in turn, plain transformers before it. `cut by the client` is `prefill_steps`; the other
rows force every step to one size. Seconds are to the first token.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.prompts import Prompt, Prompts
from benchmarks.record import Record, record, show
from benchmarks.rivals.rival import TimedRun, rival
from benchmarks.turns import Meaningless
from benchmarks.wan import Wan, far_devnet
from corolla import session
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.split import split_evenly
from corolla.prefill import prefill_steps
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.units import ONE_NECTAR, Nectar

OURS = "cut by the client"
_TOKENS = SamplingParams(max_tokens=2)


def fixed(size: int):  # type: ignore[no-untyped-def]
    """`prefill_steps` with steps of one size."""

    def steps(tokens: int, *, hops: int, most: int, keep: int = 1) -> list[int]:
        return [size] * ((tokens - 1) // size) + [(tokens - 1) % size + 1]

    return steps


@asynccontextmanager
async def swarm(checkpoint: Path, nodes: int, wan: Wan | None) -> AsyncIterator[AsyncClient]:
    """A client with a deposit before `nodes` nodes, which are near where `wan` is None."""
    spans = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, nodes)
    plan = DevnetPlan(model=str(checkpoint), spans=spans)
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corolla-prefill-")))
        running = Devnet(plan, home=home) if wan is None else far_devnet(plan, wan, home=home)
        devnet = await stack.enter_async_context(running)
        client = await stack.enter_async_context(
            AsyncClient(
                network=devnet.network, model=str(checkpoint), signer=devnet.client.signer, home_dir=devnet.folder
            )
        )
        await client.deposit(Nectar(100 * ONE_NECTAR))
        yield client


async def first_token(client: AsyncClient, prompt: Prompt, base: TimedRun) -> float:
    """Seconds until it. Raises Meaningless unless the tokens are those of the baseline."""
    made = await client.generate(prompt.text, _TOKENS)
    if made.token_ids != base.token_ids:
        raise Meaningless(f"the swarm says {made.token_ids}, plain transformers {base.token_ids}")
    return made.usage.first_token_seconds


async def measure(nodes: int, wan: Wan | None, *, tokens: int, sizes: Sequence[int], rounds: int) -> list[Record]:
    checkpoint = prepare_smollm()
    prompts, chapters = Prompts.for_checkpoint(checkpoint), count()
    length = len(prompts.passage(tokens).ids)
    ways = {OURS: prefill_steps, **{f"steps of {size}": fixed(size) for size in sizes}}
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    async with rival("benchmarks.rivals.plain", str(checkpoint)) as plain, swarm(checkpoint, nodes, wan) as client:
        await client.generate("Hello", _TOKENS)  # opens the tranche
        for _ in range(rounds):
            for way, steps in ways.items():
                prompt = prompts.passage(tokens, chapter=next(chapters))  # nodes remember what a client sent before
                base = await plain.run(prompt.ids, _TOKENS.max_tokens)
                seconds["plain"].append(base.prefill)
                with patch.object(session, "prefill_steps", steps):
                    seconds[way].append(await first_token(client, prompt, base))
    where = "loopback" if wan is None else str(wan)
    command = f"python -m benchmarks.prefill --nodes {nodes} --rtt {0 if wan is None else wan.rtt} --tokens {tokens}"
    baseline = length / median(seconds.pop("plain"))
    return [
        record(
            f"prefill of {length}, {nodes} nodes, {where}, {way}",
            length / median(took),
            "tok/s",
            baseline=baseline,
            command=command,
        )
        for way, took in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prefill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rtt", type=float, nargs="+", default=[0.0, 0.05], help="seconds")
    parser.add_argument("--tokens", type=int, nargs="+", default=[512])
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 32, 64, 128])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    torch.set_num_threads(1)
    records = []
    for nodes in args.nodes:
        for rtt in args.rtt:
            for tokens in args.tokens:
                wan = Wan(rtt) if rtt else None
                records += asyncio.run(measure(nodes, wan, tokens=tokens, sizes=args.sizes, rounds=args.rounds))
    show(records, Console(width=120))


if __name__ == "__main__":
    main()
