"""Accepts mutually authenticated TLS 1.3 connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from functools import partial

import structlog

from corolla_core.protocol.errors import NetworkError, PeerUnreachable
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.signature import Signer
from corolla_core.swarm import tcp
from corolla_core.swarm.certificate import Certificate, ephemeral_certificate, server_context
from corolla_core.swarm.connection import Connection, Handler, Policy
from corolla_core.swarm.frame import Budget
from corolla_core.swarm.hello import ServerHello

_log = structlog.get_logger(__name__)
_ACCEPT_PAUSE = 0.1


class Listener:
    """Listens on one TCP port. Every connection is given to `handler` by its first message.

    Strangers are bounded: at most `max_unauthenticated` connections in the middle of a handshake (half of them from
    one address), each for at most `policy.handshake` seconds, and `max_connections` in all. More are closed at once.
    Tensors that are still arriving hold at most `max_receiving` bytes in all.
    """

    def __init__(
        self,
        identity: Signer,
        handler: Handler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        policy: Policy | None = None,
        certificate: Certificate | None = None,
        max_unauthenticated: int = 128,
        max_connections: int = 4096,
        max_receiving: int = 1024 * 1024 * 1024,
    ) -> None:
        self._identity = identity
        self._handler = handler
        self._host = host
        self._port = port
        self._policy = policy or Policy()
        self._certificate = certificate or ephemeral_certificate()
        self._max_unauthenticated = max_unauthenticated
        self._max_connections = max_connections
        self._budget = Budget(max_receiving)
        self._tls = server_context(self._certificate)
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._hosts: Counter[str] = Counter()
        self._connections: set[Connection] = set()

    @property
    def port(self) -> int:
        """The port listened on, known after `start()`."""
        return self._port

    @property
    def cert_hash(self) -> Hash32:
        """What clients pin: the SHA-256 of the certificate."""
        return self._certificate.hash

    @property
    def connections(self) -> frozenset[Connection]:
        """The authenticated connections that stand now."""
        return frozenset(conn for conn in self._connections if conn.established)

    async def start(self) -> None:
        """Raises NetworkError when the port cannot be had."""
        try:
            self._socket = tcp.listen(self._host, self._port)
        except OSError as error:
            raise NetworkError(f"cannot listen on {self._host}:{self._port}: {error}") from None
        self._port = self._socket.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(self._socket), name="listener")

    async def stop(self) -> None:
        """Stop listening and close every connection (each gets its `on_lost` with None)."""
        tasks = [task for task in (self._accepting, *self._handshakes) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        await asyncio.gather(*(conn.close() for conn in list(self._connections)))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, remote = await loop.sock_accept(listening)
            except OSError as error:
                # Out of file descriptors, or the peer is gone already: neither ends the listener.
                _log.warning("accept failed", error=str(error))
                await asyncio.sleep(_ACCEPT_PAUSE)
                continue
            if self._admits(remote[0]):
                self._hosts[remote[0]] += 1
                task = asyncio.create_task(self._welcome(sock, remote[0]), name="handshake")
                self._handshakes.add(task)
                task.add_done_callback(partial(self._handshake_ended, remote[0]))
            else:
                sock.close()

    def _admits(self, host: str) -> bool:
        return (
            len(self._handshakes) < self._max_unauthenticated
            and self._hosts[host] < max(1, self._max_unauthenticated // 2)
            and len(self._connections) < self._max_connections
        )

    async def _welcome(self, sock: socket.socket, host: str) -> None:
        """The handshake of one connection, from TLS to the end of the hello."""
        loop = asyncio.get_running_loop()
        hello = ServerHello(self._identity, binding=self.cert_hash)
        conn = Connection(
            hello, self._handler, policy=self._policy, on_gone=self._connections.discard, budget=self._budget
        )
        self._connections.add(conn)
        try:
            with contextlib.suppress(OSError):
                tcp.tune(sock)
            await loop.connect_accepted_socket(
                lambda: conn, sock, ssl=self._tls, ssl_handshake_timeout=self._policy.handshake
            )
            await conn.authenticated()
        except (OSError, NetworkError) as error:
            # ssl.SSLError is an OSError; strangers fail handshakes all day, so this is no warning.
            _log.debug("handshake failed", remote=host, error=str(error))
            conn.drop(PeerUnreachable("the handshake failed"))
        except asyncio.CancelledError:
            conn.drop(PeerUnreachable("the listener stops"))
            raise

    def _handshake_ended(self, host: str, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]
