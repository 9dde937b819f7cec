"""The door of a private swarm's node: what an account that is not attested sends reaches nobody."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from corolla_core.protocol.errors import NetworkError, NotAdmitted, to_wire
from corolla_core.swarm.membership import Membership
from corolla_core.swarm.messages import AnyMessage, Fault
from corolla_node.errands import Errands
from corolla_node.ports import Link, LinkHandler

_log = structlog.get_logger(__name__)
MAX_HELD_BYTES = 64 * 2**20
"""Of all messages together that wait for the chain to say who sends them."""
_MESSAGE_BYTES = 1024
"""What a message without its payload counts."""


class Gate:
    """A `Handler` before another. A connection's messages stay in order; one that is not admitted, or is so no more, is
    told so and closed at its next message."""

    def __init__(self, inner: LinkHandler, membership: Membership, tasks: asyncio.TaskGroup) -> None:
        self._inner = inner
        self._membership = membership
        self._tasks = Errands(tasks)
        self._waiting: dict[Link, list[tuple[AnyMessage, memoryview]]] = {}
        self._held = 0
        self._refused: set[Link] = set()

    def on_message(self, conn: Link, message: AnyMessage, payload: memoryview) -> None:
        if conn in self._refused:
            return
        waiting = self._waiting.get(conn)
        if waiting is None and self._membership.admitted(conn.peer):
            self._inner.on_message(conn, message, payload)
        elif self._held + _size(payload) > MAX_HELD_BYTES:
            self._refuse(conn, message)
        else:
            self._held += _size(payload)
            if waiting is None:
                self._waiting[conn] = [(message, payload)]
                self._tasks.create_task(self._ask(conn))
            else:
                waiting.append((message, payload))

    def on_lost(self, conn: Link, error: NetworkError | None) -> None:
        self._take(conn)
        self._refused.discard(conn)
        self._inner.on_lost(conn, error)

    async def _ask(self, conn: Link) -> None:
        admitted = conn.peer in await self._membership.among([conn.peer])
        waiting = self._take(conn)
        if admitted:
            for message, payload in waiting:
                self._inner.on_message(conn, message, payload)
        elif waiting:
            self._refuse(conn, waiting[0][0])

    def _take(self, conn: Link) -> list[tuple[AnyMessage, memoryview]]:
        waiting = self._waiting.pop(conn, [])
        self._held -= sum(_size(payload) for _, payload in waiting)
        return waiting

    def _refuse(self, conn: Link, message: AnyMessage) -> None:
        _log.info("not admitted", peer=conn.peer)
        self._take(conn)
        self._refused.add(conn)
        with suppress(NetworkError):
            conn.send(Fault(to_wire(NotAdmitted("this swarm is private")), getattr(message, "session", None), None))
        self._tasks.create_task(conn.close())


def _size(payload: memoryview) -> int:
    return _MESSAGE_BYTES + payload.nbytes
