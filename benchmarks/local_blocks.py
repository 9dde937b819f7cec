"""What keeping the first and last blocks on the client's machine costs.

python -m benchmarks.local_blocks [--tokens 40] [--prompt 256] [--rounds 4]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.prompts import Prompts
from benchmarks.record import Record, record, show
from benchmarks.swarm import NODES
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.split import split_evenly
from corolla.speculation import OFF, Speculation
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.units import ONE_NECTAR, Nectar

KEPT = ((0, 0), (1, 0), (2, 0), (2, 2))
_COMMAND = "python -m benchmarks.local_blocks"


async def measure(*, tokens: int, prompt: int, rounds: int) -> list[Record]:
    """The clients take turns, so that what else the machine does befalls each alike."""
    checkpoint = prepare_smollm()
    prompts = Prompts.for_checkpoint(checkpoint)
    plan = DevnetPlan(model=str(checkpoint), spans=split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES))
    token: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    first: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corolla-local-")))
        devnet = await stack.enter_async_context(Devnet(plan, home=home))
        clients = {
            kept: await stack.enter_async_context(
                AsyncClient(
                    network=devnet.network,
                    model=str(checkpoint),
                    signer=devnet.client.signer,
                    home_dir=devnet.folder,
                    speculation=Speculation(OFF),
                    local_blocks=kept,
                )
            )
            for kept in KEPT
        }
        await clients[0, 0].deposit(Nectar(100 * ONE_NECTAR))
        for client in clients.values():
            await client.generate("Hello", SamplingParams(max_tokens=4))  # opens the tranche
        for number in range(rounds):
            text = prompts.passage(prompt, chapter=number).text  # nodes remember what a client sent before
            for kept, client in clients.items():
                usage = (await client.generate(text, SamplingParams(max_tokens=tokens))).usage
                first[kept].append(usage.first_token_seconds)
                token[kept].append(1 / usage.tokens_per_second)
    return [
        record(f"{what}, {a}+{b} blocks kept", median(took[a, b]) * 1e3, "ms", baseline=median(took[0, 0]) * 1e3,
               command=_COMMAND)
        for what, took in (("a token", token), (f"the first token after {prompt}", first))
        for a, b in KEPT
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    torch.set_num_threads(1)
    show(asyncio.run(measure(tokens=args.tokens, prompt=args.prompt, rounds=args.rounds)), Console(width=120))


if __name__ == "__main__":
    main()
