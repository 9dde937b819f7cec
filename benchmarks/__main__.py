"""`make bench`, `make bench-all`: every part, each written to `benchmarks/results.json` as it ends; a table, a PNG."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

import torch
import uvloop
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.chart import draw
from benchmarks.effort import FULL, QUICK, Effort
from benchmarks.record import Record, keep, load, save, show
from benchmarks.suite import PARTS, Part
from corolla_core.config import setup_logging
from corolla_core.model.smollm import prepare_smollm

RESULTS = Path(__file__).with_name("results.json")
CHART = Path(__file__).parents[1] / "docs" / "img" / "benchmarks.png"
_LIMIT = 3600.0


def measure(part: Part, checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    """A part's records; none, and the reason told, when it fails: the other parts are worth having without it."""
    out.print(f"{part.name}: {part.about} …", style="dim")
    began = time.monotonic()
    try:
        records: list[Record] = uvloop.run(_within(part, checkpoint, effort, out))
    except Exception:
        out.print_exception()
        return []
    out.print(f"{part.name}: {time.monotonic() - began:.0f} s", style="dim")
    return records


async def _within(part: Part, checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    async with asyncio.timeout(_LIMIT):
        return await part.run(checkpoint, effort, out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--all", action="store_true", help="more rounds, sessions and latencies")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="these parts")
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    torch.set_num_threads(1)
    err = Console(stderr=True)
    checkpoint = prepare_smollm()
    commands = {part.command for part in PARTS}
    save([each for each in load(RESULTS) if each.command in commands], RESULTS)  # no part measures the others any more
    failed = []
    for part in PARTS:
        if args.only is None or part.name in args.only:
            if records := measure(part, checkpoint, FULL if args.all else QUICK, err):
                keep(records, RESULTS, command=part.command)
                show(records, Console(), title=part.about)
            else:
                failed.append(part.name)
    draw(load(RESULTS), CHART)
    err.print(f"written to {RESULTS} and {CHART}", style="dim")
    if failed:
        err.print(f"failed: {' '.join(failed)}; again with --only", style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()
