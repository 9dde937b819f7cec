"""Dialing a peer on real loopback sockets: whom a dialer believes, and what it says when nobody can be reached."""

from __future__ import annotations

import asyncio
import socket
import ssl

import psutil
import pytest
from swarm_peers import HASTY, RawPeer, Recorder, anyio_backend, endpoint_of, listening, new_signer

from corolla_core.protocol.errors import (
    NetworkError,
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
)
from corolla_core.protocol.ids import address_bytes
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.dial import dial
from corolla_core.swarm.messages import Endpoint

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio
SESSION = bytes(16)


async def test_another_certificate_than_announced_is_refused_before_a_byte_is_sent() -> None:
    server, theirs, ours = new_signer(), Recorder(), Recorder()
    async with listening(server, theirs) as listener:
        forged = Endpoint(address_bytes(server.address), "127.0.0.1", listener.port, b"x" * 32, "")
        with pytest.raises(PeerMisbehaved):
            await dial(forged, identity=new_signer(), handler=ours)
        assert ours.losses.empty()


async def test_a_man_in_the_middle_with_its_own_certificate_is_refused_by_the_server() -> None:
    """The attacker announced its own certificate under the server's account and passes every byte on."""
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs) as real, listening(new_signer(), Recorder()) as attacker_tls:

        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            behind = await RawPeer.connect(real.port)

            async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                while data := await source.read(65536):
                    sink.write(data)
                sink.close()

            await asyncio.gather(copy(reader, behind.writer), copy(behind.reader, writer), return_exceptions=True)

        relay = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=attacker_tls._tls)
        port = relay.sockets[0].getsockname()[1]
        endpoint = Endpoint(address_bytes(server.address), "127.0.0.1", port, attacker_tls.cert_hash, "")
        with pytest.raises((PeerUnreachable, PeerMisbehaved)):
            await dial(endpoint, identity=new_signer(), handler=Recorder())
        assert not real.connections
        assert theirs.messages.empty()
        relay.close()


async def test_the_wrong_account_behind_the_right_certificate_is_refused() -> None:
    async with listening(new_signer(), Recorder()) as listener:
        with pytest.raises(PeerMisbehaved):
            await dial(endpoint_of(listener, new_signer().address), identity=new_signer(), handler=Recorder())


async def test_tls_below_1_3_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(new_signer(), Recorder()) as listener:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawPeer.connect(listener.port, context=context)


async def test_nobody_at_the_address_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    me = new_signer()
    endpoint = Endpoint(address_bytes(me.address), "127.0.0.1", port, bytes(32), "")
    with pytest.raises(PeerUnreachable):
        await dial(endpoint, identity=me, handler=Recorder())
    with pytest.raises(PeerUnreachable):
        await dial(replace_host(endpoint, "no.such.host.invalid"), identity=me, handler=Recorder())


async def test_a_server_that_never_answers_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        me = new_signer()
        endpoint = Endpoint(address_bytes(me.address), "127.0.0.1", mute.getsockname()[1], bytes(32), "")
        with pytest.raises(PeerTimeout):
            await dial(endpoint, identity=me, handler=Recorder(), timeout=0.2)


def replace_host(endpoint: Endpoint, host: str) -> Endpoint:
    return Endpoint(endpoint.account, host, endpoint.port, endpoint.cert_hash, endpoint.peer_id)


async def test_the_fallback_is_used_only_where_no_connection_can_be_made() -> None:
    class Spy:
        def __init__(self) -> None:
            self.asked = 0

        async def dial(self, endpoint: Endpoint, **_: object) -> Connection:
            self.asked += 1
            raise PeerUnreachable("spy", peer=None)

    server, spy = new_signer(), Spy()
    async with listening(server, Recorder()) as listener:
        good = endpoint_of(listener, server.address)
        for endpoint, asked in (
            (replace_peer(good, bytes(32)), 0),  # a wrong certificate is refused, not worked around
            (replace_peer(good, good.cert_hash, port=1, peer_id=""), 0),  # nothing to fall back on
            (replace_peer(good, good.cert_hash, port=1), 1),
        ):
            with pytest.raises(NetworkError):
                await dial(endpoint, identity=new_signer(), handler=Recorder(), fallback=spy)
            assert spy.asked == asked


def replace_peer(endpoint: Endpoint, cert_hash: bytes, *, port: int | None = None, peer_id: str = "12D3") -> Endpoint:
    return Endpoint(endpoint.account, endpoint.host, port or endpoint.port, cert_hash, peer_id)


async def test_failed_handshakes_leave_no_descriptor_behind() -> None:
    me = psutil.Process()
    server = new_signer()
    async with listening(server, Recorder(), policy=HASTY) as listener:
        good = endpoint_of(listener, server.address)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            silent = Endpoint(good.account, "127.0.0.1", mute.getsockname()[1], good.cert_hash, "")

            async def fail_in_every_way() -> None:
                with pytest.raises(PeerTimeout):
                    await dial(silent, identity=new_signer(), handler=Recorder(), timeout=0.05)
                with pytest.raises(PeerMisbehaved):
                    await dial(replace_peer(good, bytes(32)), identity=new_signer(), handler=Recorder())
                _reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await asyncio.sleep(0.01)
                writer.transport.abort()
                stranger = await RawPeer.connect(listener.port)
                stranger.writer.transport.abort()
                conn = await dial(good, identity=new_signer(), handler=Recorder())
                await conn.close()

            await fail_in_every_way()  # whatever the loop itself opens lazily
            await asyncio.sleep(HASTY.handshake + 0.3)
            before = me.num_fds()
            for _ in range(5):
                await fail_in_every_way()
            await asyncio.sleep(HASTY.handshake + 0.3)
            assert me.num_fds() <= before
            assert not listener._connections


@pytest.mark.parametrize(
    "host", ["..", "a..b", ".", "a" * 64 + ".example", "nul\0byte", "\u2488com", "xn--\xad", " ", "%"]
)
async def test_a_host_that_can_be_none_is_unreachable(host: str) -> None:
    me = new_signer()
    endpoint = Endpoint(address_bytes(me.address), host, 1, bytes(32), "")
    with pytest.raises(PeerUnreachable):
        await dial(endpoint, identity=me, handler=Recorder())


async def test_a_fallback_that_breaks_leaves_the_peer_unreachable() -> None:
    class Broken:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def dial(self, endpoint: Endpoint, **_: object) -> Connection:
            raise self.error

    me = new_signer()
    endpoint = Endpoint(address_bytes(me.address), "..", 1, bytes(32), "12D3")
    for error in (ConnectionResetError("p2pd is gone"), ValueError("no varint")):
        with pytest.raises(PeerUnreachable, match=str(error)):
            await dial(endpoint, identity=me, handler=Recorder(), fallback=Broken(error))
