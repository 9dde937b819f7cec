"""`python -m benchmarks.prefix`: time to the first token of a session whose prompt begins as an earlier one's did.

Through a node of its own on loopback, beside prompts of the same length that begin as none did, taking turns. Also what
speaks for copies and reservations: attention on a CPU wants one piece, so that pages had to be put together for every
token; and memory that a session has used is not the system's again when the next one reserves it. Prints the table and
writes `benchmarks/prefix.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.batching import SPAN
from benchmarks.customer import Customer
from benchmarks.lone_node import LoneNode, lone_node
from benchmarks.record import Record, record, save, show
from corolla_core.config import setup_logging
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.cache import SpanCache
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.smollm import prepare_smollm
from corolla_node.prefixes import BLOCK

COMMAND = "python -m benchmarks.prefix"
RESULTS = Path(__file__).with_name("prefix.json")
CHUNK = 128
OWN = 8
"""Positions behind the common prefix."""


async def first_tokens(checkpoint: Path, *, common: int, rounds: int) -> Record:
    """The time from opening a session to its prompt's last row, with the prefix known and not."""
    known, fresh = [], []
    async with lone_node(checkpoint, SPAN) as node, Customer(node, 0) as customer:
        prefix = torch.randn(1, common, node.hidden)
        await _first_token(customer, prefix, node)
        for _ in range(rounds):
            known.append(await _first_token(customer, prefix, node))
            fresh.append(await _first_token(customer, torch.randn(1, common, node.hidden), node))
    name = f"first token after {common + OWN} positions, {common} of them known"
    return record(name, 1e3 * median(known), "ms", baseline=1e3 * median(fresh), command=COMMAND)


async def _first_token(customer: Customer, prefix: Tensor, node: LoneNode) -> float:
    prompt = torch.cat([prefix, torch.randn(1, OWN, node.hidden)], dim=1)
    began = time.perf_counter()
    await customer.open(max_tokens=prompt.shape[1])
    for start in range(0, prompt.shape[1], CHUNK):
        await customer.step(prompt[:, start : start + CHUNK])
    taken = time.perf_counter() - began
    await customer.close()
    return taken


def engine(blocks: BlockRange, *, common: int, rounds: int) -> list[Record]:
    """What a session pays once for its copies, and what a token would pay for pages, beside the token's own pass."""
    cache = blocks.new_cache(1, common + 1)
    blocks.forward(torch.randn(1, common, blocks.hidden_size), cache)
    parts = [cache.part(start, start + BLOCK) for start in range(0, common, BLOCK)]
    token = torch.randn(1, 1, blocks.hidden_size)

    def decode() -> None:
        blocks.forward(token, cache)
        cache.crop(common)

    def copy() -> None:
        heir = blocks.new_cache(1, common + 1)
        for part in parts:
            heir.append(part)

    layers = list(zip(*parts, strict=True))
    query = torch.randn(1, blocks.config.num_attention_heads, 1, layers[0][0][0].shape[-1])
    whole = [tuple(torch.cat(side, dim=2) for side in zip(*pages, strict=True)) for pages in layers]

    def attend() -> None:
        for keys, values in whole:
            scaled_dot_product_attention(query, keys, values, enable_gqa=True)

    def attend_to_pages() -> None:
        for pages in layers:
            keys, values = (torch.cat(side, dim=2) for side in zip(*pages, strict=True))
            scaled_dot_product_attention(query, keys, values, enable_gqa=True)

    took: dict[Callable[[], None], list[float]] = {work: [] for work in (decode, copy, attend, attend_to_pages)}
    with torch.inference_mode():
        for _ in range(rounds):
            for work, times in took.items():
                began = time.thread_time()
                work()
                times.append(1e3 * (time.thread_time() - began))
    least = {work: min(times) for work, times in took.items()}
    return [
        record(f"copying {common} positions, once", least[copy], "ms", baseline=least[decode], command=COMMAND),
        record(f"attending to {common}", least[attend], "ms", baseline=least[decode], command=COMMAND),
        record(f"the same in pages of {BLOCK}", least[attend_to_pages], "ms", baseline=least[decode], command=COMMAND),
    ]


def resident(blocks: BlockRange, *, sessions: int = 16, reserved: int = 2048, used: int = 256) -> list[Record]:
    """What sessions that use part of what they reserve take of the machine, beside what they reserve: at first, and
    when they have followed one after another on sessions that used it all."""
    source = blocks.new_cache(1, reserved)
    blocks.forward(torch.randn(1, BLOCK, blocks.hidden_size), source)
    part = source.part(0, BLOCK)
    process = psutil.Process()
    before = process.memory_info().rss

    def session(tokens: int) -> SpanCache:
        cache = blocks.new_cache(1, reserved)
        for _ in range(tokens // BLOCK):
            cache.append(part)
        return cache

    def measured(when: str) -> Record:
        mib, baseline = process.memory_info().rss - before, sessions * blocks.kv_bytes(1, reserved)
        name = f"resident, {used} of {reserved} positions used, {when}"
        return record(name, mib / 2**20, "MiB", baseline=baseline / 2**20, command=COMMAND)

    held: list[SpanCache | None] = [session(used) for _ in range(sessions)]
    records = [measured("at first")]
    for tokens in (reserved, used):
        for place in range(sessions):
            held[place] = None
            held[place] = session(tokens)
    return [*records, measured("then")]


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--common", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    checkpoint = prepare_smollm()
    records = [asyncio.run(first_tokens(checkpoint, common=args.common, rounds=args.rounds))]
    blocks = load_blocks(open_checkpoint(str(checkpoint)), SPAN)
    records += resident(blocks)
    records += engine(blocks, common=args.common, rounds=20)
    save(records, RESULTS)
    show(records, Console())


if __name__ == "__main__":
    main()
