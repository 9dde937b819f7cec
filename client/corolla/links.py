"""Connections to nodes: one per node, shared by every session, dialed when first needed or ahead of need."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

import structlog

from corolla_core.protocol.errors import CorollaError, NetworkError, PeerMisbehaved, PeerUnreachable
from corolla_core.protocol.ids import Address, SessionId, address
from corolla_core.swarm.messages import AnyMessage, Endpoint

_log = structlog.get_logger(__name__)

#: Sessions opened at a node at the same time. It refuses more than a few from one client before it answers the first.
OPENING_AT_ONCE = 4


class Link(Protocol):
    """An authenticated connection. `send` never blocks and is called from the event loop only."""

    @property
    def peer(self) -> Address: ...

    @property
    def closed(self) -> bool: ...

    @property
    def rtt(self) -> float | None: ...

    def send(self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None) -> None: ...

    async def drain(self) -> None: ...

    async def close(self) -> None: ...


class LinkHandler(Protocol):
    def on_message(self, conn: Link, message: AnyMessage, payload: memoryview) -> None: ...

    def on_lost(self, conn: Link, error: NetworkError | None) -> None: ...


class Dialer(Protocol):
    """Connects to an endpoint, whose messages then reach `handler`. Raises NetworkError."""

    async def __call__(self, endpoint: Endpoint, /, *, handler: LinkHandler) -> Link: ...


class Listener(Protocol):
    """A session, as the links see it."""

    def on_message(self, peer: Address, message: AnyMessage, payload: memoryview) -> None: ...

    def on_lost(self, peer: Address, error: NetworkError) -> None: ...


class Links:
    """Hands each message to the session it belongs to, and a lost connection to every session that listens."""

    def __init__(self, dial: Dialer, *, clock: Callable[[], float] = time.monotonic, patience: float = 20.0) -> None:
        """`patience`: seconds for which a node that could not be reached is not tried again ahead of need."""
        self._dial = dial
        self._clock = clock
        self._patience = patience
        self._open: dict[Address, Link] = {}
        self._dialing: dict[Address, asyncio.Task[Link]] = {}
        self._failed_at: dict[Address, float] = {}
        self._listeners: dict[SessionId, Listener] = {}
        self._opening: defaultdict[Address, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(OPENING_AT_ONCE))
        self._closing = False

    def listen(self, session: SessionId, listener: Listener) -> None:
        self._listeners[session] = listener

    def forget(self, session: SessionId) -> None:
        self._listeners.pop(session, None)

    def get(self, account: Address) -> Link | None:
        """The connection that stands, if one does."""
        link = self._open.get(account)
        return None if link is None or link.closed else link

    def rtt(self, account: Address) -> float | None:
        """Seconds of the last measured round trip to a connected node."""
        link = self.get(account)
        return None if link is None else link.rtt

    def opening(self, account: Address) -> asyncio.Semaphore:
        """Held while a session is opened at a node."""
        return self._opening[account]

    async def connect(self, endpoint: Endpoint) -> Link:
        """The connection to `endpoint`, dialed unless it stands. Raises NetworkError."""
        account = address(bytes(endpoint.account))
        link = self.get(account)
        if link is not None:
            return link
        if self._closing:
            raise PeerUnreachable("the client is closing", peer=account)
        task = self._dialing.get(account)
        if task is None:
            task = self._dialing[account] = asyncio.create_task(self._connect(endpoint, account), name="dial")
        # Shielded: several sessions may wait for the same dial, and one that gives up must not end it.
        return await asyncio.shield(task)

    def warm(self, endpoints: list[Endpoint]) -> None:
        """Dial in the background what is not connected, so that a standby costs no handshake when it is needed."""
        for endpoint in endpoints:
            account = address(bytes(endpoint.account))
            recently = self._clock() - self._failed_at.get(account, -self._patience) < self._patience
            if self.get(account) is None and account not in self._dialing and not recently and not self._closing:
                task = asyncio.create_task(self._connect(endpoint, account), name="warm")
                self._dialing[account] = task
                task.add_done_callback(_retrieve)

    async def close(self) -> None:
        """Close every connection; nothing is dialed afterwards."""
        self._closing = True
        tasks = list(self._dialing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(link.close() for link in list(self._open.values())), return_exceptions=True)
        self._open.clear()

    # What connections call

    def on_message(self, conn: Link, message: AnyMessage, payload: memoryview) -> None:
        session = getattr(message, "session", None)
        if session is None:
            # Acknowledged vouchers, answers to Ask, faults about a connection: of interest to whoever uses this peer.
            for listener in list(self._listeners.values()):
                listener.on_message(conn.peer, message, payload)
            return
        owner = self._listeners.get(SessionId(session))
        if owner is not None:
            owner.on_message(conn.peer, message, payload)

    def on_lost(self, conn: Link, error: NetworkError | None) -> None:
        if self._open.get(conn.peer) is conn:
            del self._open[conn.peer]
        lost = error or PeerUnreachable("the connection was closed", peer=conn.peer)
        for listener in list(self._listeners.values()):
            listener.on_lost(conn.peer, lost)

    async def _connect(self, endpoint: Endpoint, account: Address) -> Link:
        try:
            link = await self._dial(endpoint, handler=self)
        except CorollaError as error:
            self._failed_at[account] = self._clock()
            raise (
                error if isinstance(error, NetworkError) else PeerUnreachable(error.message, peer=account)
            ) from error
        except (OSError, ValueError) as error:
            # What it announced cannot even be tried: a host that is none, say.
            self._failed_at[account] = self._clock()
            raise PeerMisbehaved(f"announces an address that cannot be dialed: {error}", peer=account) from error
        finally:
            self._dialing.pop(account, None)
        self._open[account] = link
        return link


def _retrieve(task: asyncio.Task[Link]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.debug("a standby could not be reached", error=str(error))
