"""`python -m benchmarks.engines`: a span in float32, bfloat16 and int8, side by side in one run.

Processor time of the one computing thread, the least of several rounds in which the engines take turns: a token for one
session, a token for each of 16, and a prompt's 128 positions; the ratio is to float32. Prints the table and writes
`benchmarks/engines.json`.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.record import Record, record, save, show
from corolla_core.config import setup_logging
from corolla_core.model.block_range import BlockRange
from corolla_core.model.cache import SpanCache
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.span import Span
from corolla_node.loading import load

COMMAND = "python -m benchmarks.engines"
RESULTS = Path(__file__).with_name("engines.json")
SPAN = Span(0, 15)
"""Half of SmolLM2, as one of two nodes serves it."""
DTYPES = ("float32", "bfloat16", "int8")
WORK = {"decoding": (1, 1), "decoding 16 sessions": (16, 1), "a prompt of 128": (1, 128)}
"""(sessions, positions of each)"""


def measured(engines: dict[str, BlockRange], *, rounds: int, context: int) -> list[Record]:
    """Tokens a second of each engine at each kind of work, over `context` positions held."""
    records = [
        record(f"weights, {dtype}", blocks.weight_bytes / 2**20, "MiB", baseline=_mebibytes(engines), command=COMMAND)
        for dtype, blocks in engines.items()
    ]
    for work, (sessions, positions) in WORK.items():
        caches = {dtype: _caches(blocks, sessions, context, positions) for dtype, blocks in engines.items()}
        hidden = [torch.randn(1, positions, engines["float32"].hidden_size) for _ in range(sessions)]
        taken = defaultdict[str, list[float]](list)
        for _ in range(rounds):
            for dtype, blocks in engines.items():
                taken[dtype].append(_seconds(blocks, hidden, caches[dtype], context))
        rates = {dtype: sessions * positions / min(seconds) for dtype, seconds in taken.items()}
        records += [
            record(f"{work}, {dtype}", rate, "tok/s", baseline=rates["float32"], command=COMMAND)
            for dtype, rate in rates.items()
        ]
    return records


def _mebibytes(engines: dict[str, BlockRange]) -> float:
    return engines["float32"].weight_bytes / 2**20


def _caches(blocks: BlockRange, sessions: int, context: int, positions: int) -> list[SpanCache]:
    caches = [blocks.new_cache(1, context + positions) for _ in range(sessions)]
    for cache in caches:
        blocks.forward(torch.randn(1, context, blocks.hidden_size), cache)
    return caches


def _seconds(blocks: BlockRange, hidden: Sequence[torch.Tensor], caches: Sequence[SpanCache], context: int) -> float:
    steps = list(zip(hidden, caches, strict=True))
    began = time.thread_time()
    outputs = blocks.forward_many(steps)
    taken = time.thread_time() - began
    for cache in caches:
        cache.crop(context)
    for output in outputs:
        if isinstance(output, Exception):
            raise output
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--context", type=int, default=64)
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    checkpoint = open_checkpoint(str(prepare_smollm()))
    manifest = Manifest.beside(checkpoint)
    engines = {dtype: load(checkpoint, manifest, SPAN, device="cpu", dtype=dtype).blocks for dtype in DTYPES}
    records = measured(engines, rounds=args.rounds, context=args.context)
    save(records, RESULTS)
    show(records, Console())


if __name__ == "__main__":
    main()
