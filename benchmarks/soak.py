"""`python -m benchmarks.soak`: many sessions on one node for long. No token may be lost or wrong, no memory kept.

Customers open sessions of random lengths, prefill and decode, one or two rows, beginning as their others did or not,
some sending what must be refused, some vanishing in mid-step, until the time is up. What each decoded beside the others
is compared with one prefill by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from torch import Tensor

from benchmarks.customer import Customer
from benchmarks.lone_node import LoneNode, lone_node
from corolla_core.config import setup_logging
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.errors import OutOfCapacity, TensorRejected
from corolla_core.protocol.span import Span

ERROR = 1e-4
"""Relative: float32 in passes of other sizes stays well below."""
SETTLING = 0.25
"""The part of the time after which the node's memory should not grow any more."""
GROWTH = 1.2


@dataclass(slots=True)
class Soaked:
    """What was seen. `refused` counts sessions for which there was no memory left."""

    tokens: int = 0
    sessions: int = 0
    refused: int = 0
    worst: float = 0.0
    problems: Counter[str] = field(default_factory=Counter)
    settled: int = 0
    """the node's resident bytes after the beginning"""
    most: int = 0
    """and the most after that"""


class Soak:
    """Keeps `customers` sessions of up to `longest` positions going for some `seconds`."""

    def __init__(self, node: LoneNode, reference: BlockRange, *, customers: int, seconds: float, longest: int) -> None:
        self._node = node
        self._reference = reference
        self._customers = customers
        self._seconds = seconds
        self._longest = longest
        self._end = time.monotonic() + seconds
        self._seen = Soaked()

    async def run(self) -> Soaked:
        seen = self._seen
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            for number in range(self._customers):
                tasks.create_task(self._keep_coming(number))
        async with Customer(self._node, self._customers) as last:
            await _all_given_back(last, seen)
        if seen.most > GROWTH * seen.settled:
            seen.problems[f"resident memory grew from {seen.settled >> 20} to {seen.most >> 20} MiB"] += 1
        return seen

    @property
    def _over(self) -> bool:
        return time.monotonic() >= self._end

    async def _watch(self) -> None:
        process = psutil.Process(self._node.process.pid)
        await asyncio.sleep(self._seconds * SETTLING)
        self._seen.settled = process.memory_info().rss
        while not self._over:
            self._seen.most = max(self._seen.most, process.memory_info().rss)
            await asyncio.sleep(min(1.0, self._seconds / 20))

    async def _keep_coming(self, number: int) -> None:
        dice = random.Random(number)
        often_said = torch.randn(1, self._longest, self._reference.hidden_size)
        while not self._over:
            async with Customer(self._node, number) as customer:
                while not self._over and await self._session(customer, dice, often_said):
                    pass

    async def _session(self, customer: Customer, dice: random.Random, often_said: Tensor) -> bool:
        """One session; False when it ended by breaking the connection."""
        seen, longest = self._seen, self._longest
        batch, prompt = dice.choice((1, 1, 1, 2)), dice.randint(2, longest // 2)
        whole = torch.randn(batch, longest, self._reference.hidden_size)
        common = dice.randint(0, longest)
        whole[:, :common] = often_said[:, :common]
        try:
            await customer.open(max_tokens=longest, batch=batch)
        except OutOfCapacity:
            seen.refused += 1
            await asyncio.sleep(dice.random())
            return True
        seen.sessions += 1
        outputs: list[tuple[int, Tensor]] = []
        for start, stop in _chunks(prompt, dice.randint(prompt, longest)):
            if self._over:
                break
            if dice.random() < 0.02:
                await _send_rubbish(customer, whole[:, :1], seen)
            if dice.random() < 0.002:
                with suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await customer.step(whole[:, start:stop])
                return False
            outputs.append((stop - 1, await customer.step(whole[:, start:stop])))
            seen.tokens += batch * (stop - start)
        await customer.close()
        if customer.receipted != customer.position:
            seen.problems[f"receipts for {customer.receipted} of {customer.position} positions"] += 1
        if outputs and dice.random() < 0.1:
            _compare(outputs, whole[:, : customer.position], self._reference, seen)
        return True


def _chunks(prompt: int, length: int) -> list[tuple[int, int]]:
    return [(0, prompt), *((at, at + 1) for at in range(prompt, length))]


async def _send_rubbish(customer: Customer, like: Tensor, seen: Soaked) -> None:
    try:
        await customer.step(torch.full_like(like, float("nan")))
        seen.problems["NaN was computed"] += 1
    except TensorRejected:
        pass


def _compare(outputs: list[tuple[int, Tensor]], whole_BTD: Tensor, reference: BlockRange, seen: Soaked) -> None:
    batch, length, _hidden = whole_BTD.shape
    alone = reference.forward(whole_BTD, reference.new_cache(batch, length))
    for position, output in outputs:
        expected = alone[:, position : position + 1]
        error = float(((output - expected).norm(dim=-1) / expected.norm(dim=-1)).max())
        seen.worst = max(seen.worst, error)
        if not error < ERROR:
            seen.problems[f"a position is off by {error:.1e}"] += 1


async def _all_given_back(customer: Customer, seen: Soaked) -> None:
    """Sessions of lost connections stay for a while in case their client comes back."""
    info = await customer.info()
    for _ in range(30):
        if (info.sessions, info.kv_free) == (0, info.kv_total):
            return
        await asyncio.sleep(1)
        info = await customer.info()
    seen.problems[f"{info.kv_total - info.kv_free} bytes and {info.sessions} sessions are still held"] += 1


async def run(checkpoint: Path, span: Span, *, customers: int, seconds: float, longest: int, kv_share: float) -> Soaked:
    """`kv_share`: how much of what all customers want at once the node has; below 1 some are refused."""
    reference = load_blocks(open_checkpoint(str(checkpoint)), span)
    each = reference.kv_bytes(1, longest) + 4 * longest * reference.hidden_size
    budget = int(kv_share * customers * 1.5 * each)
    async with lone_node(checkpoint, span, kv_budget=budget) as node:
        return await Soak(node, reference, customers=customers, seconds=seconds, longest=longest).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--longest", type=int, default=192)
    parser.add_argument("--kv-share", type=float, default=0.9)
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    seen = asyncio.run(
        run(
            prepare_smollm(),
            Span(0, 5),
            customers=args.sessions,
            seconds=args.seconds,
            longest=args.longest,
            kv_share=args.kv_share,
        )
    )
    print(f"{seen.tokens} tokens in {seen.sessions} sessions, {seen.refused} refused for want of memory")
    print(f"largest error {seen.worst:.1e}; resident {seen.settled >> 20} MiB, then at most {seen.most >> 20} MiB")
    for problem, times in seen.problems.items():
        print(f"{times} × {problem}")
    sys.exit(bool(seen.problems))


if __name__ == "__main__":
    main()
