"""What a narrower wire costs to write and read, and what it saves where the line is slow.

python -m benchmarks.wires [--rtt 0.05] [--mbit 2] [--tokens 512] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.prompts import Prompts
from benchmarks.record import Record, record, show
from benchmarks.swarm import NODES
from benchmarks.wan import Wan, far_devnet
from corolla.client import AsyncClient
from corolla.devnet.devnet import DevnetPlan
from corolla.devnet.split import split_evenly
from corolla.policy import Policy
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.model.smollm import prepare_smollm
from corolla_core.model.tensors import from_wire, onto_wire, to_wire
from corolla_core.protocol.units import ONE_NECTAR, Nectar

WIRES = ("float32", "bfloat16", "int8")
_COMMAND = "python -m benchmarks.wires"


def codecs() -> list[Record]:
    """Microseconds to write, and to read, 1 and 128 rows of two widths."""
    records = []
    for hidden in (576, 4096):
        for rows in (1, 128):
            sent = torch.randn(1, rows, hidden)
            for wire in WIRES:
                name, shape, payload = to_wire(onto_wire(sent, wire))

                def write(wire: str = wire, sent: torch.Tensor = sent) -> object:
                    return to_wire(onto_wire(sent, wire))

                def read(
                    name: str = name, shape: tuple[int, ...] = shape, payload: memoryview = payload, size: int = hidden
                ) -> object:
                    return from_wire(name, shape, payload, expect_shape=(1, None, size)).float()

                what = f"{rows} × {hidden} in {wire}, {len(payload)} bytes"
                records.append(record(f"writing {what}", _microseconds(write), "µs", command=_COMMAND))
                records.append(record(f"reading {what}", _microseconds(read), "µs", command=_COMMAND))
    return records


def _microseconds(work: Callable[[], object], *, times: int = 200) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1e6


async def prefills(wan: Wan, *, tokens: int, rounds: int) -> list[Record]:
    """The first token after a prompt, through two nodes over each wire."""
    checkpoint = prepare_smollm()
    prompts = Prompts.for_checkpoint(checkpoint)
    plan = DevnetPlan(model=str(checkpoint), spans=split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES))
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corolla-wires-")))
        devnet = await stack.enter_async_context(far_devnet(plan, wan, home=home))
        clients = {
            wire: await stack.enter_async_context(
                AsyncClient(
                    network=devnet.network,
                    model=str(checkpoint),
                    signer=devnet.client.signer,
                    home_dir=devnet.folder,
                    policy=Policy(wire_dtype=wire),
                )
            )
            for wire in WIRES
        }
        await clients["float32"].deposit(Nectar(100 * ONE_NECTAR))
        for client in clients.values():
            await client.generate("Hello", SamplingParams(max_tokens=2))  # opens the tranche
        for number in range(rounds):
            prompt = prompts.passage(tokens, chapter=number)  # nodes remember what a client sent before
            for wire, client in clients.items():
                made = await client.generate(prompt.text, SamplingParams(max_tokens=2))
                seconds[wire].append(made.usage.first_token_seconds)
    baseline = median(seconds["float32"])
    return [
        record(f"first token after {tokens}, {wan}, {wire}", median(took), "s", baseline=baseline, command=_COMMAND)
        for wire, took in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rtt", type=float, default=0.05, help="seconds")
    parser.add_argument("--mbit", type=float, default=2.0, help="megabits a second, to and from each node")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    torch.set_num_threads(1)
    records = codecs() + asyncio.run(prefills(Wan(args.rtt, args.mbit), tokens=args.tokens, rounds=args.rounds))
    show(records, Console(width=120))


if __name__ == "__main__":
    main()
