"""Connections to the next nodes: dialed once per peer, shared by every session that sends there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from corolla_core.protocol.errors import CorollaError, NetworkError, OutOfCapacity, PeerUnreachable
from corolla_core.protocol.ids import Address, address
from corolla_core.swarm.messages import AnyMessage, Endpoint
from corolla_node.errands import Errands
from corolla_node.ports import Dialer, Link, LinkHandler

_log = structlog.get_logger(__name__)
MAX_LINKS = 256


class Outlet:
    """One session's way to its next node. What is sent before the link stands waits for it, in order."""

    def __init__(self, shared: _Shared, on_lost: Callable[[Outlet, NetworkError], None]) -> None:
        self._shared = shared
        self._on_lost = on_lost
        self._link: Link | None = None
        self._waiting: list[tuple[AnyMessage, memoryview | None]] = []
        self._on_up: list[Callable[[], None]] = []
        self._error: NetworkError | None = None
        self.peer: Address = shared.peer
        self.endpoint = shared.endpoint

    @property
    def error(self) -> NetworkError | None:
        """Why nothing can be sent any more."""
        return self._error

    def send(self, message: AnyMessage, payload: memoryview | None) -> None:
        """Raises PeerUnreachable when the peer is lost."""
        if self._error is not None:
            raise PeerUnreachable(self._error.message, peer=self.peer)
        if self._link is None:
            self._waiting.append((message, payload))
            return
        self._link.send(message, payload)

    def when_up(self, call: Callable[[], None]) -> None:
        """Call once everything sent so far is with the link; never if the peer cannot be reached."""
        if self._link is not None:
            call()
        elif self._error is None:
            self._on_up.append(call)

    def release(self) -> None:
        """This session will send no more through it, and hears nothing of its loss."""
        self._error = self._error or PeerUnreachable("released", peer=self.peer)
        self._waiting.clear()
        self._on_up.clear()
        self._shared.leave(self)

    def _up(self, link: Link) -> None:
        self._link = link
        try:
            for message, payload in self._waiting:
                link.send(message, payload)
        except CorollaError:
            return  # lost already: the link's own loss is about to be reported
        self._waiting.clear()
        for call in self._on_up:
            call()
        self._on_up.clear()

    def _down(self, error: NetworkError) -> None:
        self._waiting.clear()
        self._on_up.clear()
        if self._error is None:
            self._error = error
            self._on_lost(self, error)


class _Shared:
    """One peer's link, dialed when the first session asks for it and closed after the last has left."""

    def __init__(self, owner: Links, endpoint: Endpoint) -> None:
        self.peer = address(bytes(endpoint.account))
        self.endpoint = endpoint
        self.link: Link | None = None
        self.outlets: set[Outlet] = set()
        self._owner = owner

    def join(self, outlet: Outlet) -> None:
        self.outlets.add(outlet)
        if self.link is not None:
            outlet._up(self.link)

    def leave(self, outlet: Outlet) -> None:
        self.outlets.discard(outlet)
        if not self.outlets:
            self._owner.idle(self)

    async def connect(self, dial: Dialer, handler: LinkHandler) -> None:
        try:
            self.link = await dial(self.endpoint, handler=handler)
        except NetworkError as error:
            self.fail(error)
            return
        except Exception as error:  # the endpoint is a stranger's: no dialer foresees all that it may hold
            _log.exception("a dial failed in a way that no dialer should", peer=self.peer)
            self.fail(PeerUnreachable(str(error), peer=self.peer))
            return
        for outlet in list(self.outlets):
            outlet._up(self.link)
        if not self.outlets:
            self._owner.idle(self)

    def fail(self, error: NetworkError) -> None:
        # Only here: clients are not told why, lest they scan with us.
        _log.info("a next node cannot be reached", peer=self.peer, error=str(error))
        self._owner.forget(self)
        for outlet in list(self.outlets):
            outlet._down(error)


class Links:
    """Used from the event loop only. Set `handler`, who gets what the peers send back, before the first `outlet`."""

    handler: LinkHandler

    def __init__(self, dial: Dialer, tasks: asyncio.TaskGroup, *, linger: float = 30.0) -> None:
        self._dial = dial
        self._tasks = Errands(tasks)
        self._linger = linger
        self._shared: dict[Endpoint, _Shared] = {}

    def __len__(self) -> int:
        """How many peers it has dialed."""
        return len(self._shared)

    def outlet(self, endpoint: Endpoint, on_lost: Callable[[Outlet, NetworkError], None]) -> Outlet:
        """A way to `endpoint`; dials when no link to it stands. Raises OutOfCapacity at `MAX_LINKS` peers."""
        shared = self._shared.get(endpoint)
        if shared is not None and shared.link is not None and shared.link.closed:
            self.forget(shared)
            shared = None
        if shared is None:
            if len(self._shared) >= MAX_LINKS:
                raise OutOfCapacity("connected to too many peers", needed=1, free=0)
            shared = self._shared[endpoint] = _Shared(self, endpoint)
            self._tasks.create_task(shared.connect(self._dial, self.handler))
        outlet = Outlet(shared, on_lost)
        shared.join(outlet)
        return outlet

    def lost(self, link: Link, error: NetworkError | None) -> None:
        """A connection is gone; where it was one of ours, every session that sends through it learns so."""
        for shared in [s for s in self._shared.values() if s.link is link]:
            shared.fail(error or PeerUnreachable("the connection was closed", peer=shared.peer))

    def idle(self, shared: _Shared) -> None:
        asyncio.get_running_loop().call_later(self._linger, self._close_if_idle, shared)

    def forget(self, shared: _Shared) -> None:
        if self._shared.get(shared.endpoint) is shared:
            del self._shared[shared.endpoint]

    async def close(self) -> None:
        for shared in list(self._shared.values()):
            self.forget(shared)
            if shared.link is not None:
                await shared.link.close()

    def _close_if_idle(self, shared: _Shared) -> None:
        if shared.outlets or shared.link is None or self._shared.get(shared.endpoint) is not shared:
            return
        self.forget(shared)
        with suppress(RuntimeError):  # the task group may be closing with the node
            self._tasks.create_task(shared.link.close())
