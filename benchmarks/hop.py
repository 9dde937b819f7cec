"""`python -m benchmarks.hop`: where a token's time goes between a client and two paid nodes, moment by moment.

All processes are on one machine and read one clock, so that every hand-over is seen from both sides: from the call that
sends a step to the call that takes it in, from there to the compute thread, and back. Beside it plain transformers, the
two taking turns. Medians say what a hop costs; the 99th percentiles mostly what else the machine was doing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from benchmarks.record import machine
from benchmarks.rivals.rival import rival
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.smollm import prepare_smollm

PROMPT = "Once upon a time, in a garden behind an old mill, there lived a bee who"
HOPS = 2
MOST_HOP_MS = 0.7
LEAST_OF_PLAIN = 0.97
_INSIDE = ("pay", "queue", "decode", "compute", "encode", "deliver")
"""A node's parts of a step in order, from `received` until its output is handed to the socket; see `StepTiming`."""
_NAMES = {
    "pay": "checking the payment",
    "queue": "to the compute thread",
    "decode": "unpacking and checking the tensor",
    "compute": "forward pass",
    "encode": "packing",
    "deliver": "back to the event loop",
    "send": "(writing to the socket: part of the next link)",
}
Parts = dict[str, list[float]]
"""Seconds of every decoded token, by part."""


class TwoHops:
    """`benchmarks.two_hops` in a process of its own."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def run(self, tokens: int) -> tuple[int, ...]:
        """The tokens after `PROMPT`."""
        return tuple((await self._ask({"prompt": PROMPT, "tokens": tokens}))["ids"])

    async def end(self) -> dict[str, Any]:
        """The moments of all that was decoded."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self.line()

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        return await self.line()

    async def line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("the client and its nodes have ended")
        said: dict[str, Any] = json.loads(line)
        return said


@asynccontextmanager
async def two_hops(checkpoint: Path) -> AsyncIterator[TwoHops]:
    """A client and two nodes that are up, gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.two_hops", str(checkpoint), stdin=PIPE, stdout=PIPE, limit=1 << 26,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip
    try:
        hops = TwoHops(process)
        await hops.line()
        yield hops
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def parts_of(moments: dict[str, Any], count: int) -> Parts:
    """The last `count` decoded tokens, part by part, in the order in which a token goes through them.

    `moments` is what `benchmarks.two_hops` prints at its end: when steps `left` the client and results `came`, from
    when to when the client itself did its `work`, and each of the `nodes`' step timings.
    """
    left, came = moments["left"][-count:], moments["came"][-count:]
    nodes = [steps[-count:] for steps in moments["nodes"]]
    parts: Parts = {}
    sent: Sequence[float] = left
    for number, steps in enumerate(nodes, 1):
        parts[f"link to node {number}"] = [step["received"] - at for step, at in zip(steps, sent, strict=True)]
        for part in (*_INSIDE, "send"):
            parts[f"node {number}: {_NAMES[part]}"] = [step[part] for step in steps]
        sent = [step["received"] + sum(step[part] for part in _INSIDE) for step in steps]
    parts["link to the client"] = [at - began for at, began in zip(came, sent, strict=True)]
    begins = [begin for begin, _end in moments["work"]]
    works = [moments["work"][bisect_left(begins, at)] for at in came[:-1]]
    parts["client: to its compute thread"] = [begin - at for (begin, _), at in zip(works, came, strict=False)]
    parts["client: head, sampling, embedding"] = [end - begin for begin, end in works]
    parts["client: to the next step"] = [at - end for (_, end), at in zip(works, left[1:], strict=True)]
    parts["a token"] = [after - before for before, after in pairwise(left)]
    return parts


def overhead(parts: Parts) -> float:
    """Median seconds a hop: the links, and what the nodes do beside the forward pass."""
    counted = [
        seconds
        for name, seconds in parts.items()
        if name.startswith("link") or (name.startswith("node") and _NAMES["compute"] not in name and "(" not in name)
    ]
    return sum(median(seconds) for seconds in counted) / HOPS


def table(parts: Parts, plain: Sequence[float]) -> Table:
    shown = Table(title=f"a decoded token, ms ({machine()})", title_justify="left")
    for heading in ("part", "p50", "p90", "p99"):
        shown.add_column(heading, justify="left" if heading == "part" else "right")
    for name, seconds in [*parts.items(), ("plain transformers, a token", list(plain))]:
        cuts = quantiles(seconds, n=100)
        shown.add_row(name, *(f"{1e3 * cuts[percent - 1]:.3f}" for percent in (50, 90, 99)))
    return shown


async def measure(checkpoint: Path, *, rounds: int, tokens: int) -> tuple[Parts, list[float]]:
    """The parts of our tokens, and plain transformers' seconds a token."""
    prompt = list(open_checkpoint(str(checkpoint)).tokenizer()(PROMPT).input_ids)
    plain_seconds: list[float] = []
    async with rival("benchmarks.rivals.plain", str(checkpoint)) as plain, two_hops(checkpoint) as hops:
        for number in range(rounds + 1):
            base = await plain.run(prompt, tokens)
            if await hops.run(tokens) != base.token_ids:
                raise SystemExit("the two do different work")
            if number:  # the first round warms everything up
                plain_seconds += base.steps
        return parts_of(await hops.end(), rounds * (tokens - 1)), plain_seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    parts, plain = asyncio.run(measure(prepare_smollm(), rounds=args.rounds, tokens=args.tokens))
    out = Console()
    out.print(table(parts, plain))
    hop, ratio = 1e3 * overhead(parts), median(plain) / median(parts["a token"])
    out.print(f"a hop beside its forward pass: {hop:.2f} ms (target {MOST_HOP_MS})")
    out.print(f"of plain transformers' speed: {ratio:.3f} (target {LEAST_OF_PLAIN})")


if __name__ == "__main__":
    main()
