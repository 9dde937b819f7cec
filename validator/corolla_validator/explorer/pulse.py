"""Which nodes answer, as of a second ago: an announcement outlives its node by a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.ids import Address
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.messages import Info

EVERY = 1.0
ANSWER_SECONDS = 2.5
SILENCE = 3.0
"""So that a node that hangs is red within five seconds, of which the page takes one."""
TRIES = 2
"""Failures in a row, for one that is gone: dialing it is refused at once."""
AT_ONCE = 64
"""Nodes asked at a time."""


class Pulse(StrEnum):
    UNKNOWN = "unknown"
    ANSWERS = "answers"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Beat:
    """First asked and last `heard` (seconds of a monotonic clock), how many `sessions` it then said it had, and how
    often asking has failed since."""

    since: float
    heard: float | None = None
    sessions: int | None = None
    failures: int = 0

    def pulse(self, now: float) -> Pulse:
        if self.failures >= TRIES or now - (self.since if self.heard is None else self.heard) > SILENCE:
            return Pulse.SILENT
        return Pulse.UNKNOWN if self.heard is None else Pulse.ANSWERS


class AsksInfo(Protocol):
    """The part of `SwarmNodes` that is used. Raises CorollaError or TimeoutError."""

    async def info(self, node: Announcement, *, seconds: float) -> Info: ...


class Pulses:
    """Asks every node how it is, again and again. A slow one keeps no other waiting."""

    def __init__(self, nodes: AsksInfo, *, clock: Callable[[], float]) -> None:
        self._nodes = nodes
        self._clock = clock
        self._beats: dict[Address, Beat] = {}
        self._asked: set[Address] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    @property
    def beats(self) -> Mapping[Address, Beat]:
        return self._beats

    async def run(
        self,
        targets: Callable[[], Collection[Announcement]],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = {node.account: node for node in targets()}
                for gone in self._beats.keys() - wanted.keys():
                    del self._beats[gone]
                for account in wanted.keys() - self._asked:
                    self._asked.add(account)
                    group.create_task(self._ask(wanted[account]))
                await sleep(EVERY)

    async def _ask(self, node: Announcement) -> None:
        account = node.account
        try:
            async with self._turns:
                before = self._beats.setdefault(account, Beat(self._clock()))
                try:
                    info = await self._nodes.info(node, seconds=ANSWER_SECONDS)
                except (CorollaError, TimeoutError):
                    self._beats[account] = replace(before, failures=before.failures + 1)
                else:
                    self._beats[account] = Beat(before.since, self._clock(), info.sessions)
        finally:
            self._asked.discard(account)
