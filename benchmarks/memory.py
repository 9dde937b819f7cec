"""What a node's sessions take: resident memory of its process before, during and after them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import torch
from rich.console import Console

from benchmarks.customer import Customer
from benchmarks.effort import Effort
from benchmarks.lone_node import LoneNode, lone_node
from benchmarks.record import Record, record
from corolla_core.protocol.span import Span

SPAN = Span(0, 15)
"""Half of SmolLM2, as one of two nodes serves it."""
_SESSIONS = 16
_POSITIONS = 256
_MIB = 2**20


async def memory(
    checkpoint: Path,
    effort: Effort,
    out: Console,
    *,
    span: Span = SPAN,
    sessions: int = _SESSIONS,
    positions: int = _POSITIONS,
) -> list[Record]:
    """A node and some sessions full to the brim."""
    async with lone_node(checkpoint, span) as node:
        await _fill(node, 1, positions)  # what is allocated once, such as the scratch of a first pass
        idle = _resident(node)
        held, reserved = await _fill(node, sessions, positions)
        after = _resident(node)
    each = (held - idle) / sessions / _MIB
    of = f"a session of {positions} positions"
    return [
        record("resident memory of a node with half of the blocks, no session", idle / _MIB, "MiB"),
        record(f"resident memory that {of} adds, against its KV cache", each, "MiB", baseline=reserved / _MIB),
        record(f"resident memory left behind by {sessions} such sessions", (after - idle) / _MIB, "MiB"),
    ]


async def _fill(node: LoneNode, sessions: int, positions: int) -> tuple[int, float]:
    """Resident bytes while all sessions stand, and the KV bytes that the node set aside for each."""
    prompt = torch.randn(1, positions, node.hidden)
    async with AsyncExitStack() as stack:
        customers = [await stack.enter_async_context(Customer(node, number)) for number in range(sessions)]
        for customer in customers:
            await customer.open(max_tokens=positions)
            await customer.step(prompt)
        resident, info = _resident(node), await customers[0].info()
        for customer in customers:
            await customer.close()
    return resident, (info.kv_total - info.kv_free) / sessions


def _resident(node: LoneNode) -> int:
    return int(psutil.Process(node.process.pid).memory_info().rss)
