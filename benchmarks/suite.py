"""The parts of the suite: what each measures, and how it is run."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.batching import sessions
from benchmarks.effort import Effort
from benchmarks.far import far
from benchmarks.hops import hops
from benchmarks.kills import kills
from benchmarks.memory import memory
from benchmarks.record import Record, record
from benchmarks.speculation import compare
from benchmarks.stream import stream
from benchmarks.wan import Wan


@dataclass(frozen=True, slots=True)
class Part:
    """A part by the name that `--only` knows."""

    name: str
    about: str
    run: Callable[[Path, Effort, Console], Awaitable[list[Record]]]

    @property
    def command(self) -> str:
        return f"python -m benchmarks --only {self.name}"


async def transports(checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    """Echo round trips of our connections, against bare TCP without TLS."""
    script = str(Path(__file__).with_name("transport.py"))
    process = await asyncio.create_subprocess_exec(sys.executable, script, "--json", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    rows = json.loads(said)["rows"]
    bare = {row["size"]: row["p50_ms"] for row in rows if row["transport"] == "tcp"}
    return [
        record(f"echo of {row['size']} over {row['transport']}", row["p50_ms"], "ms", baseline=bare[row["size"]])
        for row in rows
        if row["transport"] != "tcp"
    ]


async def many(checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    return await sessions(checkpoint, effort.sessions, rounds=effort.rounds)


async def guesses(checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    """With speculation against without, at every latency."""
    return [
        each
        for latency in effort.latencies
        for each in await compare(checkpoint, Wan(latency / 1e3), rounds=effort.rounds)
    ]


PARTS = (
    Part("stream", "one stream through two nodes beside plain transformers, accelerate and Petals", stream),
    Part("kills", "nodes killed in mid-sentence", kills),
    Part("sessions", "many sessions at one node", many),
    Part("wan", "long lines", far),
    Part("speculation", "tokens guessed ahead over long lines", guesses),
    Part("hops", "chains of one to eight nodes", hops),
    Part("memory", "what sessions take", memory),
    Part("transports", "echoes over our connections", transports),
)
