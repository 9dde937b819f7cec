"""The same connections over libp2p streams: for peers that only hole punching or a relay can reach.

libp2p encrypts and proves both peer ids; our hello then proves the accounts, bound to those two ids.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import structlog
from eth_utils.crypto import keccak

from corolla_core.protocol.errors import NetworkError, PeerUnreachable
from corolla_core.protocol.ids import Hash32, address
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.connection import Connection, Handler, Policy
from corolla_core.swarm.hello import MAX_HELLO_BYTES, ClientHello, ServerHello
from corolla_core.swarm.messages import Endpoint

if TYPE_CHECKING:
    from corolla_core.swarm.directory import Directory

PROTOCOL = "/corolla/stream/1"
_log = structlog.get_logger(__name__)


class Libp2p:
    """Streams through the directory's p2pd: `start` serves them, `dial` opens them."""

    def __init__(self, directory: Directory, *, max_unauthenticated: int = 32) -> None:
        self._p2p = directory.p2p
        self._max_unauthenticated = max_unauthenticated
        self._unauthenticated = 0
        # The writers are kept because asyncio closes the transport of one that is collected.
        self._streams: dict[Connection, asyncio.StreamWriter] = {}
        self._serving = False

    async def start(self, identity: Signer, handler: Handler, *, policy: Policy | None = None) -> None:
        """Serve streams as `identity`, giving their messages to `handler` as a Listener does."""

        async def accept(stream: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._welcome(stream.peer_id, writer, identity=identity, handler=handler, policy=policy)

        await self._p2p.add_binary_stream_handler(PROTOCOL, accept)
        self._serving = True

    async def stop(self) -> None:
        """Serve no more and close every stream."""
        if self._serving:
            self._serving = False
            try:
                await self._p2p.remove_binary_stream_handler(PROTOCOL)
            except Exception as error:  # a dead p2pd serves no more anyway, and its errors are of unrelated kinds
                _log.debug("p2pd did not take the handler back", error=str(error))
        await asyncio.gather(*(conn.close() for conn in list(self._streams)))

    async def dial(
        self, endpoint: Endpoint, *, identity: Signer, handler: Handler, policy: Policy | None = None
    ) -> Connection:
        """A connection to `endpoint.peer_id` whose account has been proven.

        Raises PeerUnreachable, PeerTimeout or PeerMisbehaved.
        """
        from hivemind.p2p import PeerID

        peer = address(endpoint.account)
        try:
            remote = PeerID.from_base58(endpoint.peer_id)
        except Exception as error:  # base58 and multihash raise several unrelated kinds
            raise PeerUnreachable(f"no peer id: {error}", peer=peer) from None
        try:
            _stream, reader, writer = await self._p2p.call_binary_stream_handler(remote, PROTOCOL)
        except Exception as error:  # p2pd's refusals and a dead p2pd come as unrelated kinds
            raise PeerUnreachable(f"libp2p: {error}", peer=peer) from None
        binding = stream_binding(dialer=self._p2p.peer_id, server=remote)
        hello = ClientHello(identity, binding=binding, expected=peer)
        conn = Connection(hello, handler, policy=policy, expected=peer, on_gone=self._forget)
        self._streams[conn] = writer
        try:
            # The server speaks first and then waits for us, so that behind its greeting the reader holds nothing.
            greeting = await reader.read(MAX_HELLO_BYTES)
            if not greeting:
                raise PeerUnreachable("the stream ended before the greeting", peer=peer)
            _take_over(conn, writer)
            conn.get_buffer(len(greeting))[: len(greeting)] = greeting
            conn.buffer_updated(len(greeting))
            await conn.authenticated()
        except OSError as error:
            writer.close()
            conn.drop(PeerUnreachable("the stream broke", peer=peer))
            raise PeerUnreachable(f"libp2p: {error}", peer=peer) from None
        except BaseException:
            writer.close()
            conn.drop(PeerUnreachable("the dial was given up", peer=peer))
            raise
        return conn

    async def _welcome(
        self, remote: Any, writer: asyncio.StreamWriter, *, identity: Signer, handler: Handler, policy: Policy | None
    ) -> None:
        if self._unauthenticated >= self._max_unauthenticated:
            writer.close()
            return
        hello = ServerHello(identity, binding=stream_binding(dialer=remote, server=self._p2p.peer_id))
        conn = Connection(hello, handler, policy=policy, on_gone=self._forget)
        self._streams[conn] = writer
        self._unauthenticated += 1
        try:
            _take_over(conn, writer)
            await conn.authenticated()
        except NetworkError as error:
            _log.debug("handshake failed", remote=str(remote), error=str(error))
        finally:
            self._unauthenticated -= 1
        await conn.wait_closed()

    def _forget(self, conn: Connection) -> None:
        self._streams.pop(conn, None)


def _take_over(conn: Connection, writer: asyncio.StreamWriter) -> None:
    """Put the connection in the place of asyncio's stream protocol: no second buffer, no task that pumps."""
    transport = cast(asyncio.Transport, writer.transport)
    transport.set_protocol(conn)
    conn.connection_made(transport)


def stream_binding(*, dialer: Any, server: Any) -> Hash32:
    """What the hello of a stream is bound to: both libp2p peer ids."""
    ids = [peer.to_bytes() for peer in (dialer, server)]
    return Hash32(keccak(b"corolla/libp2p/v1" + b"".join(len(raw).to_bytes(2, "big") + raw for raw in ids)))
