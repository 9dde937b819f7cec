"""`make bench`: every measure, as a table and as `benchmarks/results.json`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
import uvloop
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.failover import failovers
from benchmarks.plain import plain_model
from benchmarks.record import Record, record, save, show
from benchmarks.swarm import ROUNDS, Rounds, side_by_side
from corolla_core.config import setup_logging
from corolla_core.model.smollm import prepare_smollm

RESULTS = Path(__file__).with_name("results.json")


async def swarm(out: Console, *, rounds: Rounds) -> list[Record]:
    checkpoint = prepare_smollm()
    out.print(f"two nodes against plain transformers, {rounds.count} rounds each, taking turns …", style="dim")
    async with plain_model(checkpoint) as plain:
        records = await side_by_side(checkpoint, plain, rounds=rounds)
    out.print("nodes killed in mid-sentence …", style="dim")
    return records + await failovers(checkpoint)


def transports(out: Console) -> list[Record]:
    """Echo round trips of our connections, against bare TCP without TLS."""
    out.print("echoes over our connections …", style="dim")
    script = str(Path(__file__).with_name("transport.py"))
    done = subprocess.run([sys.executable, script, "--json"], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    bare = {row["size"]: row["p50_ms"] for row in rows if row["transport"] == "tcp"}
    return [
        record(f"echo of {row['size']} over {row['transport']}", row["p50_ms"], "ms", baseline=bare[row["size"]])
        for row in rows
        if row["transport"] != "tcp"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS.count)
    parser.add_argument("--tokens", type=int, default=ROUNDS.tokens)
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    torch.set_num_threads(1)
    err = Console(stderr=True)
    records = uvloop.run(swarm(err, rounds=Rounds(args.rounds, args.tokens, ROUNDS.prefill))) + transports(err)
    save(records, RESULTS)
    show(records, Console())
    err.print(f"written to {RESULTS}", style="dim")


if __name__ == "__main__":
    main()
