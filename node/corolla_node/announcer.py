"""Keeps the swarm told of what this node serves, three times per lifetime of an announcement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from corolla_core.protocol.errors import CorollaError, NetworkError
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.announcement import DEFAULT_TTL_MS, Announcement, NodeState, SignedAnnouncement
from corolla_node.ports import Clock

_log = structlog.get_logger(__name__)
_RETRY_SECONDS = 2.0
JOIN_SECONDS = 30.0


class Board(Protocol):
    """Where announcements are posted: the swarm's `Directory`. Raises NetworkError."""

    async def announce(self, signed: SignedAnnouncement) -> None: ...

    async def withdraw(self, last: Announcement, signer: Signer) -> None: ...


@dataclass(frozen=True, slots=True)
class Condition:
    """What changes from one announcement to the next."""

    state: NodeState
    throughput: int
    kv_free_tokens: int


class Announcer:
    """`template` is an announcement whose condition and times are filled in each time."""

    def __init__(
        self,
        board: Board,
        template: Announcement,
        *,
        signer: Signer,
        condition: Callable[[], Condition],
        clock: Clock,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> None:
        self._board = board
        self._template = template
        self._signer = signer
        self._condition = condition
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._last: Announcement | None = None
        self._withdrawn = False
        self._posting = asyncio.Lock()
        self._changed = asyncio.Event()

    async def announce(self) -> None:
        """Post the present condition; nothing after `withdraw`. Raises NetworkError."""
        async with self._posting:
            if self._withdrawn:
                return
            # Noted before it is posted: a failed post may have reached some peers, and the next must be newer.
            self._last = self._present()
            await self._board.announce(self._last.sign(self._signer))

    async def join(self, *, patience: float = JOIN_SECONDS) -> None:
        """The first announcement, tried again for `patience` seconds: where peers have just died, they still count as
        neighbours of the keys, and what is stored there is lost. Raises NetworkError."""
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(NetworkError),
            stop=stop_after_delay(patience),
            wait=wait_fixed(min(_RETRY_SECONDS, patience / 10)),
            reraise=True,
        ):
            with attempt:
                await self.announce()

    def move(self, template: Announcement) -> None:
        """From now on announce this, soon."""
        self._template = template
        self.changed()

    def changed(self) -> None:
        """The condition has changed: announce soon rather than at the next turn."""
        self._changed.set()

    async def run(self) -> None:
        """Announce every third of the lifetime, and when something changed, until cancelled. What fails is retried."""
        while True:
            self._changed.clear()
            pause = self._ttl_ms / 3000
            try:
                await self.announce()
            except CorollaError as error:
                _log.warning("the announcement was not taken", error=str(error))
                pause = _RETRY_SECONDS
            except Exception:  # libp2p fails in many ways; none of them is worth the node
                _log.exception("the announcement failed")
                pause = _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def withdraw(self) -> None:
        """Tell the swarm that this node is gone. Never fails: the record would expire anyway."""
        async with self._posting:
            self._withdrawn = True
            if self._last is None:
                return
            try:
                await self._board.withdraw(self._last, self._signer)
            except Exception as error:  # whatever it was, the record expires by itself
                _log.warning("the announcement could not be withdrawn", error=str(error))

    def _present(self) -> Announcement:
        condition = self._condition()
        issued = int(self._clock() * 1000)
        if self._last is not None:
            issued = max(issued, self._last.issued_at + 1)
        return replace(
            self._template,
            state=condition.state,
            throughput=condition.throughput,
            kv_free_tokens=condition.kv_free_tokens,
            issued_at=issued,
            expires_at=issued + self._ttl_ms,
        )
