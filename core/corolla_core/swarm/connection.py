"""One authenticated stream of messages between two peers, over TLS or a libp2p stream.

Everything runs on the event loop's thread. The life of a connection: hello (bounded in time and size), then messages
both ways, then exactly one `on_lost`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import msgspec
import structlog

from corolla_core.protocol.errors import (
    MalformedMessage,
    NetworkError,
    OutOfCapacity,
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
    to_wire,
)
from corolla_core.protocol.ids import Address
from corolla_core.swarm.frame import MAX_BODY_BYTES, Budget, Buffer, FrameReader, decode_message, encode
from corolla_core.swarm.hello import MAX_HELLO_BYTES, Hello, decode_hello
from corolla_core.swarm.messages import AnyMessage, Fault, Ping, Pong
from corolla_core.swarm.outbox import Outbox

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a connection is (seconds) and how much it may hold (bytes)."""

    handshake: float = 5.0
    #: a side that has sent nothing for this long sends a Ping
    idle: float = 5.0
    #: a peer that has sent nothing for this long is dead
    dead: float = 15.0
    close: float = 2.0
    max_body: int = MAX_BODY_BYTES
    #: `drain()` waits above this backlog
    high_water: int = 1024 * 1024
    #: a peer that lets more than this pile up is dropped
    max_buffered: int = 256 * 1024 * 1024


class Handler(Protocol):
    """Who uses connections. Both are called on the event loop and must not block.

    `payload` is read-only, owned by the receiver, and may be kept. An exception in `on_message` drops that connection
    alone. `on_lost` comes exactly once for every connection that was authenticated, never from inside a call into the
    connection; `error` is None when this side closed it.
    """

    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None: ...

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """A connection whose `peer` has proven its account. Got from `dial` or handed to a Handler by a Listener."""

    def __init__(
        self,
        hello: Hello,
        handler: Handler,
        *,
        policy: Policy | None = None,
        expected: Address | None = None,
        check_channel: Callable[[asyncio.Transport], None] | None = None,
        on_gone: Callable[[Connection], None] | None = None,
        budget: Budget | None = None,
    ) -> None:
        """For this package's listeners and dialers. `check_channel` raises PeerMisbehaved before a byte is sent;
        `on_gone` is told when the transport is gone; `budget` bounds what many connections receive at once."""
        self.policy = policy or Policy()
        self._hello: Hello | None = hello
        self._handler = handler
        self._peer = expected
        self._check_channel = check_channel
        self._on_gone = on_gone
        self._reader = FrameReader(max_body=MAX_HELLO_BYTES, budget=budget)
        self._reader.decode_header = decode_hello
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._finished = False
        self._error: NetworkError | None = None
        self._outbox: Outbox | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._received_at = self._sent_at = self._loop.time()
        self._pings: dict[int, tuple[float, asyncio.Future[float] | None]] = {}
        self._nonces = itertools.count(1)
        self._asked_at = 0.0
        self.rtt: float | None = None
        """Seconds of the last measured round trip, the hello's at first."""

    def __repr__(self) -> str:
        return f"Connection({self._peer}, {'closed' if self._finished else 'open'})"

    # What users call

    @property
    def peer(self) -> Address:
        """The account the other side has proven."""
        if self._peer is None:
            raise PeerMisbehaved("the peer has not proven its account yet")
        return self._peer

    @property
    def closed(self) -> bool:
        """True from the moment the loss is known, before `on_lost` is called."""
        return self._finished

    @property
    def established(self) -> bool:
        """Whether the peer has proven its account and the connection still stands."""
        return self._hello is None and not self._finished

    @property
    def buffered(self) -> int:
        """Bytes sent by us that the operating system has not taken yet."""
        return 0 if self._outbox is None else self._outbox.buffered

    @property
    def remote(self) -> str:
        """The other end's network address, for logs."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "libp2p")

    def send(self, message: AnyMessage, payload: Buffer | None = None) -> None:
        """Queue one message. Never blocks; do not change `payload` afterwards.

        Raises PeerUnreachable on a closed connection and MalformedMessage where the payload is not what the message
        declares. A peer that reads too slowly (`policy.max_buffered`) is dropped with PeerTimeout through `on_lost`.
        """
        if self._finished or self._hello is not None:
            raise PeerUnreachable("the connection is closed", peer=self._peer)
        self._write(encode(message, payload))
        if self.buffered > self.policy.max_buffered:
            self._drop(PeerTimeout(f"does not read: {self.buffered} bytes are waiting", peer=self._peer))

    async def drain(self) -> None:
        """Wait until the backlog is below `policy.high_water`. Raises NetworkError when the connection is lost."""
        if self._outbox is not None:
            await self._outbox.drain()
        if self._finished:
            raise self._error or PeerUnreachable("the connection is closed", peer=self._peer)

    async def ping(self) -> float:
        """Seconds of one round trip now. Raises the NetworkError the connection is lost with, if it is."""
        answer: asyncio.Future[float] = self._loop.create_future()
        self._send_ping(answer)
        return await answer

    def drop(self, error: NetworkError) -> None:
        """Cut the connection at once; `on_lost` will get `error`."""
        self._drop(error)

    async def close(self) -> None:
        """Flush what was sent and close; returns after `on_lost`. Does nothing on a closed connection."""
        self._finish(None)
        self._close_soon()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Returns once the transport is gone."""
        await asyncio.shield(self._gone)

    async def authenticated(self) -> None:
        """Wait for the hello's end. Raises PeerUnreachable, PeerTimeout or PeerMisbehaved."""
        await asyncio.shield(self._ready)

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._outbox = Outbox(self._transport, high_water=self.policy.high_water)
        self._received_at = self._sent_at = self._loop.time()
        self._timer = self._loop.call_later(self.policy.handshake, self._hello_late)
        if self._finished:
            self._transport.abort()
            return
        try:
            if self._check_channel is not None:
                self._check_channel(self._transport)
        except PeerMisbehaved as error:
            self._drop(error)
            return
        assert self._hello is not None
        self._write_hello(self._hello.start())

    def get_buffer(self, sizehint: int) -> memoryview:
        return _DISCARD if self._finished else self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._finished:
            return
        self._received_at = self._loop.time()
        self._reader.filled(nbytes)
        try:
            while not self._finished and (frame := self._reader.next()) is not None:
                self._receive(*frame)
        except (MalformedMessage, OutOfCapacity) as error:
            self._refuse(error)
        except PeerMisbehaved as error:
            self._drop(error)

    def eof_received(self) -> None:
        self._drop(PeerUnreachable("the peer closed the connection", peer=self._peer))

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"the connection broke: {exc}" if exc else "the peer closed the connection"
        self._finish(PeerUnreachable(reason, peer=self._peer))
        if self._outbox is not None:
            self._outbox.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.call_soon(self._set_gone)

    def pause_writing(self) -> None:
        if self._outbox is not None:
            self._outbox.pause()

    def resume_writing(self) -> None:
        if self._outbox is not None:
            self._outbox.resume()

    # Inside

    def _receive(self, message: Any, payload: memoryview) -> None:
        if self._hello is not None:
            self._receive_hello(message)
        elif isinstance(message, Ping):
            self._write(encode(Pong(message.nonce)))
            if self.buffered > self.policy.max_buffered:
                raise PeerMisbehaved("pings, but does not read", peer=self._peer)
        elif isinstance(message, Pong):
            self._receive_pong(message)
        else:
            try:
                self._handler.on_message(self, message, payload)
            except Exception as error:
                _log.exception("a message's handler failed", peer=self._peer, message=type(message).__name__)
                raise PeerMisbehaved(f"a {type(message).__name__} could not be handled", peer=self._peer) from error

    def _receive_hello(self, message: Any) -> None:
        assert self._hello is not None
        answer, peer = self._hello.receive(message)
        if peer is not None:
            self._peer = peer
            self._hello = None
            self._reader.decode_header = decode_message
            self._reader.max_body = self.policy.max_body
            self.rtt = time.monotonic() - self._asked_at
            if self._timer is not None:
                self._timer.cancel()
            self._arm_heartbeat()
        self._write_hello(answer)
        if peer is not None and not self._ready.done():
            self._ready.set_result(None)

    def _receive_pong(self, pong: Pong) -> None:
        # A Pong nobody asked for means nothing.
        sent_at, waiter = self._pings.pop(pong.nonce, (None, None))
        if sent_at is not None:
            self.rtt = time.monotonic() - sent_at
            if waiter is not None and not waiter.done():
                waiter.set_result(self.rtt)

    def _send_ping(self, waiter: asyncio.Future[float] | None) -> None:
        nonce = next(self._nonces)
        self.send(Ping(nonce))
        self._pings[nonce] = (time.monotonic(), waiter)

    def _write_hello(self, message: msgspec.Struct | None) -> None:
        if message is not None:
            self._asked_at = time.monotonic()  # uvloop's own clock counts whole milliseconds
            self._write(encode(message))

    def _write(self, buffers: list[Buffer]) -> None:
        assert self._outbox is not None
        self._sent_at = self._loop.time()
        self._outbox.write(buffers)

    def _arm_heartbeat(self) -> None:
        due = min(self._received_at + self.policy.dead, self._sent_at + self.policy.idle)
        self._timer = self._loop.call_at(due, self._beat, due)

    def _beat(self, due: float) -> None:
        if self._finished:
            return
        now = self._loop.time()
        stalled = now - due > 1.0
        if stalled:
            # This process slept, not the peer: its bytes may be waiting in the socket. Look again after reading.
            self._timer = self._loop.call_at(now + 0.5, self._beat, now + 0.5)
            return
        if now >= self._received_at + self.policy.dead:
            self._drop(PeerTimeout(f"silent for {now - self._received_at:.1f} s", peer=self._peer))
            return
        if now >= self._sent_at + self.policy.idle:
            self._send_ping(None)
        self._arm_heartbeat()

    def _hello_late(self) -> None:
        self._drop(PeerTimeout("the hello took too long", peer=self._peer))

    def _refuse(self, error: MalformedMessage | OutOfCapacity) -> None:
        """Tell the peer why its bytes are not taken, then let go of it."""
        refused = PeerMisbehaved(error.message, peer=self._peer)
        if self._hello is not None:
            self._drop(refused)
            return
        self._write(encode(Fault(to_wire(error))))
        self._finish(refused)
        self._close_soon()

    def _drop(self, error: NetworkError) -> None:
        self._finish(error)
        if self._outbox is not None:
            self._outbox.clear()
        if self._transport is not None:
            self._transport.abort()

    def _close_soon(self) -> None:
        """Close once all is sent, or after `policy.close` seconds in any case."""
        if self._outbox is None or self._transport is None:
            return
        self._outbox.close()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self.policy.close, self._transport.abort)

    def _finish(self, error: NetworkError | None) -> None:
        if self._finished:
            return
        self._finished = True
        self._error = error
        self._reader.close()
        lost = error or PeerUnreachable("the connection is closed", peer=self._peer)
        for _sent_at, waiter in self._pings.values():
            if waiter is not None and not waiter.done():
                waiter.set_exception(lost)
        self._pings.clear()
        if self._hello is None:
            self._loop.call_soon(self._tell_lost, error)
        elif not self._ready.done():
            self._ready.set_exception(lost)
            self._ready.exception()  # marks it retrieved: nobody may be waiting
        if self._transport is None:
            self._loop.call_soon(self._set_gone)

    def _tell_lost(self, error: NetworkError | None) -> None:
        try:
            self._handler.on_lost(self, error)
        except Exception:
            _log.exception("a lost connection's handler failed", peer=self._peer)

    def _set_gone(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
            if self._on_gone is not None:
                self._on_gone(self)


_DISCARD = memoryview(bytearray(64 * 1024))
