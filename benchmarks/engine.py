"""`python -m benchmarks.engine`: a decoded token by the captured program and by the model's own code, in one run.

Processor time of the computing thread, the least of several rounds in which both take turns, at 1 to 16 sessions whose
caches hold `--context` positions. What the weights alone take is a sum over all of them: no token can be faster.
Prints the table and writes `benchmarks/engine.json`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.record import Record, record, save, show
from corolla_core.config import setup_logging
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.cache import SpanCache
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.span import Span

COMMAND = "python -m benchmarks.engine"
RESULTS = Path(__file__).with_name("engine.json")
SPAN = Span(0, 15)
"""Half of SmolLM2, as one of two nodes serves it."""


def measure(model: BlockRange, captured: BlockRange, count: int, *, context: int, rounds: int) -> list[Record]:
    """A token for each of `count` sessions: milliseconds of a pass, and microseconds of a block."""
    hidden = [torch.randn(1, 1, model.hidden_size) for _ in range(count)]
    ways = [(blocks, [_warmed(blocks, context) for _ in hidden]) for blocks in (captured, model)]
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for (blocks, caches), seconds in zip(ways, taken, strict=True):
            seconds.append(_seconds(partial(blocks.forward_many, list(zip(hidden, caches, strict=True)))))
            for cache in caches:
                cache.crop(context)
    program, own = (min(seconds) for seconds in taken)
    return [
        _record(f"{count} sessions, a pass", 1e3 * program, "ms", 1e3 * own),
        _record(f"{count} sessions, a block", 1e6 * program / len(SPAN), "µs", 1e6 * own / len(SPAN)),
        _record(f"{count} sessions, all together", count / program, "tok/s", count / own),
    ]


def _warmed(blocks: BlockRange, context: int) -> SpanCache:
    cache = blocks.new_cache(1, context + 1)
    blocks.forward(torch.randn(1, context, blocks.hidden_size), cache)
    return cache


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def _weights(blocks: BlockRange) -> None:
    with torch.inference_mode():
        for parameter in blocks.parameters():
            parameter.sum()


def _record(name: str, value: float, unit: str, baseline: float | None = None) -> Record:
    return record(name, value, unit, baseline=baseline, command=COMMAND)


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=(1, 2, 4, 8, 16))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--context", type=int, default=64)
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    checkpoint = open_checkpoint(str(prepare_smollm()))
    model, captured = (load_blocks(checkpoint, SPAN) for _ in range(2))
    began = time.perf_counter()
    if not (model.batches and captured.batches) or (reason := captured.capture()):
        raise SystemExit(f"nothing to compare: {reason}")
    records = [_record("capturing 15 blocks, with its trial run", time.perf_counter() - began, "s")]
    floor = min(_seconds(partial(_weights, captured)) for _ in range(args.rounds))
    records.append(_record("reading the weights once", 1e3 * floor, "ms"))
    for count in args.counts:
        records += measure(model, captured, count, context=args.context, rounds=args.rounds)
    save(records, RESULTS)
    show(records, Console())


if __name__ == "__main__":
    main()
