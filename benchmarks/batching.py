"""`python -m benchmarks.batching`: 1 to 64 sessions at once, in one pass and one by one, in one run.

Engine: the span alone, in processor time of the computing thread, the least of several rounds that take turns. Node: a
whole node on loopback, by the clock and by its processor time; its customers send hidden states, so that no client's
own computing stands in the way. Prints the table and writes `benchmarks/batching.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.customer import Customer
from benchmarks.lone_node import LoneNode, lone_node
from benchmarks.record import Record, record, save, show
from corolla_core.config import setup_logging
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.cache import SpanCache
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.span import Span

COMMAND = "python -m benchmarks.batching"
RESULTS = Path(__file__).with_name("batching.json")
COUNTS = (1, 2, 4, 8, 16, 32, 64)
CONTEXT = 64
TOKENS = 24
SPAN = Span(0, 15)
"""Half of SmolLM2, as one of two nodes serves it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Tokens a second, of all sessions together."""

    clock: float
    processor: float


def engine(blocks: BlockRange, counts: Sequence[int], *, rounds: int, context: int) -> list[Record]:
    """A token for each of N sessions whose caches hold `context` positions."""
    if not blocks.batches:
        raise SystemExit("this model computes sessions one by one")
    caches = _caches(blocks, max(counts), context)
    records = []
    base = 0.0
    for count in counts:
        hidden = [torch.randn(1, 1, blocks.hidden_size) for _ in range(count)]
        steps = list(zip(hidden, caches[:count], strict=True))
        passes, singles = [], []
        for _ in range(rounds):  # taking turns, so that whatever else runs disturbs both
            passes.append(_seconds(partial(blocks.forward_many, steps), caches, context))
            singles.append(_seconds(partial(_one_by_one, blocks, steps), caches, context))
        together, alone = count / min(passes), count / min(singles)
        base = base or alone
        records.append(_record(f"engine, {count} sessions, against one", together, base))
        records.append(_record(f"engine, {count} sessions, against one by one", together, alone))
    return records


async def nodes(checkpoint: Path, counts: Sequence[int], *, rounds: int, context: int, tokens: int) -> list[Record]:
    """The same through two nodes that take turns, one of which computes each step by itself."""
    records = []
    async with lone_node(checkpoint, SPAN) as batching, lone_node(checkpoint, SPAN, one_by_one=True) as plain:
        base: Rate | None = None
        for count in counts:
            pairs = [
                (await _rate(batching, count, context, tokens), await _rate(plain, count, context, tokens))
                for _ in range(rounds)
            ]
            together, alone = (_best([pair[which] for pair in pairs]) for which in (0, 1))
            base = base or together
            for how in ("clock", "processor"):
                rate = getattr(together, how)
                name = f"node by {how}, {count} sessions"
                records.append(_record(f"{name}, against one", rate, getattr(base, how)))
                records.append(_record(f"{name}, against one by one", rate, getattr(alone, how)))
    return records


async def sessions(
    checkpoint: Path, counts: Sequence[int], *, rounds: int, context: int = CONTEXT, tokens: int = TOKENS
) -> list[Record]:
    """The span alone, then the whole node."""
    records = engine(_blocks(checkpoint), counts, rounds=rounds, context=context)
    return records + await nodes(checkpoint, counts, rounds=rounds, context=context, tokens=tokens)


def _blocks(checkpoint: Path) -> BlockRange:
    """As a node has them."""
    blocks = load_blocks(open_checkpoint(str(checkpoint)), SPAN)
    blocks.capture()
    return blocks


async def _rate(node: LoneNode, count: int, context: int, tokens: int) -> Rate:
    """Every session gets its prompt in, then all decode at once."""
    process = psutil.Process(node.process.pid)
    prompt, token = torch.randn(1, context, node.hidden), torch.randn(1, 1, node.hidden)

    async def decode(customer: Customer) -> None:
        for _ in range(tokens):
            await customer.step(token)

    async with AsyncExitStack() as stack:
        customers = [await stack.enter_async_context(Customer(node, number)) for number in range(count)]
        for customer in customers:
            await customer.open(max_tokens=context + tokens)
            await customer.step(prompt)
        began, before = time.perf_counter(), process.cpu_times()
        async with asyncio.TaskGroup() as tasks:
            for customer in customers:
                tasks.create_task(decode(customer))
        clock, after = time.perf_counter() - began, process.cpu_times()
        for customer in customers:
            await customer.close()
    used = after.user + after.system - before.user - before.system
    return Rate(count * tokens / clock, count * tokens / used)


def _one_by_one(blocks: BlockRange, steps: Sequence[tuple[Tensor, SpanCache]]) -> None:
    for step in steps:
        blocks.forward(*step)


def _best(rates: Sequence[Rate]) -> Rate:
    return Rate(max(rate.clock for rate in rates), max(rate.processor for rate in rates))


def _caches(blocks: BlockRange, count: int, context: int) -> list[SpanCache]:
    first = blocks.new_cache(1, context + 1)
    blocks.forward(torch.randn(1, context, blocks.hidden_size), first)
    with torch.inference_mode():
        return [copy.deepcopy(first) for _ in range(count)]


def _seconds(work: Callable[[], object], caches: Sequence[SpanCache], context: int) -> float:
    began = time.thread_time()
    work()
    taken = time.thread_time() - began
    for cache in caches:
        cache.crop(context)
    return taken


def _record(name: str, value: float, baseline: float) -> Record:
    return record(name, value, "tok/s", baseline=baseline, command=COMMAND)


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--context", type=int, default=CONTEXT)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--engine-only", action="store_true")
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    checkpoint = prepare_smollm()
    if args.engine_only:
        records = engine(_blocks(checkpoint), args.counts, rounds=args.rounds, context=args.context)
    else:
        run = sessions(checkpoint, args.counts, rounds=args.rounds, context=args.context, tokens=args.tokens)
        records = asyncio.run(run)
    save(records, RESULTS)
    show(records, Console())


if __name__ == "__main__":
    main()
