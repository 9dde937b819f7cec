"""What every session of a node shares."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from concurrent.futures import Executor
from dataclasses import dataclass, field

from corolla_core.config.tracing import Tracing
from corolla_node.archive import Archive
from corolla_node.bookkeeper import Bookkeeper
from corolla_node.kv_pool import KvPool, Share
from corolla_node.links import Links
from corolla_node.metrics import NodeMetrics
from corolla_node.paybook import Paybook
from corolla_node.ports import Clock, Memory
from corolla_node.prefixes import Prefixes
from corolla_node.receipts import Issuer
from corolla_node.scheduler import Scheduler
from corolla_node.timings import StepTimings

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """How a node serves. Times are seconds, sizes bytes."""

    max_chunk_tokens: int = 8
    """the longest stretch of unpaid tokens it accepts"""
    payment_grace: float = 2.0
    """how long an unpaid step waits for its voucher"""
    orphan_grace: float = 30.0
    """how long a session outlives its client's connection"""
    idle_grace: float = 1800.0
    """how long a session may go without a step"""
    first_step_grace: float = 60.0
    """how long a session may wait for its first step, before which it has paid for nothing"""
    max_step_tokens: int = 128
    max_sessions: int = 256
    client_share: float = 0.25
    """the part of the session memory that one client, or one payer, may hold"""
    client_sessions: int | None = None
    """how many sessions one client, or one payer, may hold; None: an eighth of `max_sessions`"""
    session_queue: int = 64 * MIB
    """tensors one session may have waiting"""

    def share(self, total: int) -> Share:
        """What one client may hold of `total` bytes of session memory."""
        sessions = self.client_sessions if self.client_sessions is not None else self.max_sessions // 8
        return Share(int(total * self.client_share), max(1, sessions))


@dataclass(slots=True)
class Desk:
    """Used from the event loop only."""

    loop: AbstractEventLoop
    policy: Policy
    scheduler: Scheduler
    paybook: Paybook
    bookkeeper: Bookkeeper
    memory: Memory
    archive: Archive
    links: Links
    inbox: KvPool
    """memory for tensors that wait, over all sessions"""
    prefixes: Prefixes
    timings: StepTimings
    signing: Executor
    issuer: Issuer
    clock: Clock
    metrics: NodeMetrics = field(default_factory=NodeMetrics)
    tracing: Tracing | None = None
