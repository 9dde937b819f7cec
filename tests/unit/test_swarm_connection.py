"""Real loopback connections, on asyncio's loop and on uvloop: who is let in, and how a loss is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

import pytest
from swarm_peers import HASTY, RawPeer, Recorder, anyio_backend, echo, endpoint_of, listening, new_signer, step_of

from corolla_core.protocol.errors import (
    MalformedMessage,
    NetworkError,
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
    from_wire,
)
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.swarm import tcp
from corolla_core.swarm.certificate import client_context
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.dial import dial
from corolla_core.swarm.frame import PREFIX, decode, encode
from corolla_core.swarm.hello import ClientHello
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import AnyMessage, Ask, Close, Endpoint, Fault, Pong

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio
SESSION = bytes(16)


async def test_messages_go_both_ways_and_peers_know_each_other() -> None:
    server, client = new_signer(), new_signer()
    theirs, ours = Recorder(echo), Recorder()
    async with listening(server, theirs) as listener:
        conn = await dial(endpoint_of(listener, server.address), identity=client, handler=ours)
        payload = os.urandom(70_000)
        conn.send(step_of(payload), payload)
        conn.send(Close(SESSION))
        got = [await ours.next_message() for _ in range(2)]
        assert [(message, bytes(data)) for _, message, data in got] == [
            (step_of(payload), payload),
            (Close(SESSION), b""),
        ]
        (served, _, _) = await theirs.next_message()
        assert served.peer == client.address
        assert conn.peer == server.address
        assert listener.connections == {served}
        assert 0 < await conn.ping() < 5
        await conn.close()


async def test_closing_tells_each_side_exactly_once() -> None:
    server = new_signer()
    theirs, ours = Recorder(), Recorder()
    async with listening(server, theirs) as listener:
        conn = await dial(endpoint_of(listener, server.address), identity=new_signer(), handler=ours)
        conn.send(Close(SESSION))
        await conn.close()
        await conn.close()
        assert ours.losses.get_nowait() == (conn, None)
        await theirs.next_message()  # what was sent before closing still arrives
        _, error = await theirs.next_loss()
        assert isinstance(error, PeerUnreachable)
        await asyncio.sleep(0.05)
        assert ours.losses.empty()
        assert theirs.losses.empty()
        assert conn.closed
        assert not listener.connections
        with pytest.raises(PeerUnreachable):
            conn.send(Close(SESSION))
        with pytest.raises(NetworkError):
            await conn.drain()


async def test_a_stopped_listener_ends_its_connections() -> None:
    server = new_signer()
    theirs, ours = Recorder(), Recorder()
    async with listening(server, theirs) as listener:
        await dial(endpoint_of(listener, server.address), identity=new_signer(), handler=ours)
        await asyncio.sleep(0)
    _, error = await ours.next_loss()
    assert isinstance(error, PeerUnreachable)
    _, error = await theirs.next_loss()
    assert error is None


_VICTIM = """
import asyncio, sys
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.listener import Listener
class Deaf:
    def on_message(self, conn, message, payload): pass
    def on_lost(self, conn, error): pass
async def main():
    listener = Listener(Signer(bytes(31) + b"\\x01"), Deaf())
    await listener.start()
    print(listener.port, listener.cert_hash.hex(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_peer_killed_with_sigkill_is_noticed_at_once() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _VICTIM, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port, cert = (await process.stdout.readline()).split()
        account = Signer(bytes(31) + b"\x01").address
        ours = Recorder()
        endpoint = Endpoint(address_bytes(account), "127.0.0.1", int(port), bytes.fromhex(cert.decode()), "")
        conn = await dial(endpoint, identity=new_signer(), handler=ours)
        began = time.monotonic()
        process.send_signal(signal.SIGKILL)
        lost, error = await ours.next_loss()
        assert time.monotonic() - began < 3  # a heartbeat alone would take 15 s
        assert lost is conn
        assert isinstance(error, PeerUnreachable)
        assert error.peer == account
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_reset_connection_is_noticed_at_once() -> None:
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs) as listener:
        sock = socket.create_connection(("127.0.0.1", listener.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=client_context(), server_hostname="x")
        peer = RawPeer(reader, writer)
        await _say_hello(peer, listener, server)
        writer.writelines(encode(Close(SESSION)))
        await theirs.next_message()
        writer.transport.abort()
        _, error = await theirs.next_loss()
        assert isinstance(error, PeerUnreachable)


async def _say_hello(peer: RawPeer, listener: Listener, server: Signer) -> None:
    hello = ClientHello(new_signer(), binding=listener.cert_hash, expected=server.address)
    claim, _ = hello.receive(await peer.read_hello())
    assert claim is not None
    peer.writer.writelines(encode(claim))
    hello.receive(await peer.read_hello())


async def test_idle_peers_keep_each_other_alive() -> None:
    server = new_signer()
    theirs, ours = Recorder(), Recorder()
    async with listening(server, theirs, policy=HASTY) as listener:
        endpoint = endpoint_of(listener, server.address)
        conn = await dial(endpoint, identity=new_signer(), handler=ours, policy=HASTY)
        await asyncio.sleep(HASTY.dead * 2.5)
        assert not conn.closed
        assert listener.connections
        assert theirs.messages.empty()  # pings are not the handler's business


async def test_a_silent_peer_is_given_up() -> None:
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs, policy=HASTY) as listener:
        peer = await RawPeer.authenticated(listener, server.address)
        _, error = await theirs.next_loss()
        assert isinstance(error, PeerTimeout)
        await peer.close()


async def test_a_silent_dialer_is_cut_off_and_never_shown_to_the_handler() -> None:
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs, policy=HASTY) as listener:
        tls_only = await RawPeer.connect(listener.port)
        plain = socket.create_connection(("127.0.0.1", listener.port))
        began = time.monotonic()
        assert await tls_only.ended()
        assert await asyncio.to_thread(plain.recv, 1) == b""
        assert time.monotonic() - began < 4
        plain.close()
        await tls_only.close()
        assert theirs.losses.empty()
        assert not listener.connections


async def test_a_failing_handler_costs_only_its_own_connection() -> None:
    def fail_on_ask(conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        if isinstance(message, Ask):
            raise ZeroDivisionError
        conn.send(message, payload)

    server, doomed, theirs = new_signer(), new_signer(), Recorder(fail_on_ask)
    async with listening(server, theirs) as listener:
        endpoint = endpoint_of(listener, server.address)
        good_side, bad_side = Recorder(), Recorder()
        good = await dial(endpoint, identity=new_signer(), handler=good_side)
        bad = await dial(endpoint, identity=doomed, handler=bad_side)
        bad.send(Ask())
        await bad_side.next_loss()
        lost, error = await theirs.next_loss()
        assert isinstance(error, PeerMisbehaved)
        assert error.peer == lost.peer == doomed.address
        good.send(Close(SESSION))
        _, message, _ = await good_side.next_message()
        assert message == Close(SESSION)


async def test_a_malformed_frame_is_answered_with_its_error_and_the_end() -> None:
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs) as listener:
        peer = await RawPeer.authenticated(listener, server.address)
        peer.writer.write(PREFIX.pack(6, 2) + b"\xff\xff")
        fault, _ = decode(memoryview(await peer.read_frame()))
        assert isinstance(fault, Fault)
        assert isinstance(from_wire(fault.error), MalformedMessage)
        assert await peer.ended()
        _, error = await theirs.next_loss()
        assert isinstance(error, PeerMisbehaved)
        await peer.close()


async def test_a_pong_nobody_asked_for_means_nothing() -> None:
    server, theirs = new_signer(), Recorder(echo)
    async with listening(server, theirs) as listener:
        peer = await RawPeer.authenticated(listener, server.address)
        peer.writer.writelines([*encode(Pong(77)), *encode(Close(SESSION))])
        message, _ = decode(memoryview(await peer.read_frame()))
        assert message == Close(SESSION)
        await peer.close()


async def test_our_sockets_are_set_for_latency() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = await tcp.connect("localhost", server.getsockname()[1])
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        sock.close()


def test_loss_based_congestion_control_is_chosen_where_the_kernel_allows_it() -> None:
    available = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    if not available.exists() or not {"cubic", "reno"} & set(available.read_text().split()):
        pytest.skip("this kernel does not let us choose")
    with socket.socket() as sock:
        tcp.tune(sock)
        chosen = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")
        assert chosen in (b"cubic", b"reno")
