"""Real loopback connections, on asyncio's loop and on uvloop: who is let in, and how a loss is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import struct
import sys
import time
from pathlib import Path

import psutil
import pytest
from swarm_peers import RawPeer, Recorder, echo, endpoint_of, listening, new_signer, step_of

from corolla_core.protocol.errors import (
    MalformedMessage,
    NetworkError,
    OutOfCapacity,
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
    from_wire,
)
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.swarm import tcp
from corolla_core.swarm.certificate import client_context
from corolla_core.swarm.connection import Connection, Policy
from corolla_core.swarm.dial import dial
from corolla_core.swarm.frame import PREFIX, decode, encode
from corolla_core.swarm.hello import ClientHello
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import AnyMessage, Ask, Close, Endpoint, Fault, Ping, Pong

pytestmark = pytest.mark.anyio
SESSION = bytes(16)
HASTY = Policy(handshake=0.5, idle=0.2, dead=1.0, close=0.2)


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


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


async def test_strangers_are_bounded_and_cannot_keep_others_out_for_long() -> None:
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs, policy=HASTY, max_unauthenticated=8) as listener:
        strangers = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(40)]
        await asyncio.sleep(0.1)
        turned_away = 0
        for sock in strangers:
            sock.setblocking(False)
            try:
                turned_away += sock.recv(1) == b""
            except BlockingIOError:
                continue
        assert turned_away == 36  # half of the eight places at most for one address
        await asyncio.sleep(HASTY.handshake + 0.2)
        conn = await dial(endpoint_of(listener, server.address), identity=new_signer(), handler=Recorder())
        assert not conn.closed
        for sock in strangers:
            sock.close()


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


async def test_a_reader_that_does_not_read_is_dropped_with_a_typed_error() -> None:
    server, theirs = new_signer(), Recorder()
    policy = Policy(max_buffered=4 * 1024 * 1024, high_water=256 * 1024)
    async with listening(server, theirs, policy=policy) as listener:
        peer = await RawPeer.authenticated(listener, server.address)
        peer.writer.writelines(encode(Close(SESSION)))
        conn, _, _ = await theirs.next_message()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        payload = bytes(1024 * 1024)
        sent = 0
        while not conn.closed and sent < 200:
            conn.send(step_of(payload), payload)
            sent += 1
            await asyncio.sleep(0)
        assert 4 < sent < 200
        _, error = await theirs.next_loss()
        assert isinstance(error, PeerTimeout)
        peer.writer.transport.abort()


async def test_drain_waits_for_a_slow_reader_and_then_goes_on() -> None:
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs, policy=Policy(high_water=64 * 1024)) as listener:
        peer = await RawPeer.authenticated(listener, server.address)
        peer.writer.writelines(encode(Close(SESSION)))
        conn, _, _ = await theirs.next_message()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        payload = os.urandom(16 * 1024 * 1024)
        for _ in range(6):  # more than both sockets' buffers can ever hold
            conn.send(step_of(payload), payload)
        draining = asyncio.create_task(conn.drain())
        await asyncio.sleep(0.2)
        assert not draining.done()
        assert conn.buffered > 16 * 1024 * 1024
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(6):
            _, got = decode(memoryview(await peer.read_frame()))
            assert got == payload
        await asyncio.wait_for(draining, 5)
        assert conn.buffered < 1024 * 1024
        peer.writer.transport.abort()


@pytest.mark.parametrize("reads", [True, False])
async def test_closing_sends_what_waits_but_does_not_wait_for_ever(reads: bool) -> None:
    server, theirs = new_signer(), Recorder()
    async with listening(server, theirs, policy=Policy(close=20 if reads else 0.3)) as listener:
        payload = os.urandom(50 * 1024 * 1024)
        peer = await RawPeer.authenticated(listener, server.address)
        peer.writer.writelines(encode(Close(SESSION)))
        conn, _, _ = await theirs.next_message()
        if not reads:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        conn.send(step_of(payload), payload)
        closing = asyncio.create_task(conn.close())
        if reads:
            _, got = decode(memoryview(await peer.read_frame()))
            assert got == payload
            peer.writer.transport.abort()
        await asyncio.wait_for(closing, 10)
        assert await theirs.next_loss() == (conn, None)
        peer.writer.transport.abort()


async def test_a_ping_flood_without_reading_ends_only_the_flooder() -> None:
    server, theirs = new_signer(), Recorder()
    policy = Policy(max_buffered=200_000, high_water=64 * 1024)
    async with listening(server, theirs, policy=policy) as listener:
        peer = await RawPeer.authenticated(listener, server.address)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        flood = b"".join(encode(Ping(2**63 - 1))) * 20_000
        for _ in range(200):
            if not theirs.losses.empty():
                break
            peer.writer.write(flood)
            await asyncio.sleep(0.02)
        _, error = await theirs.next_loss()
        assert isinstance(error, NetworkError)
        peer.writer.transport.abort()


async def test_a_pong_nobody_asked_for_means_nothing() -> None:
    server, theirs = new_signer(), Recorder(echo)
    async with listening(server, theirs) as listener:
        peer = await RawPeer.authenticated(listener, server.address)
        peer.writer.writelines([*encode(Pong(77)), *encode(Close(SESSION))])
        message, _ = decode(memoryview(await peer.read_frame()))
        assert message == Close(SESSION)
        await peer.close()


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


async def test_unfinished_tensors_of_all_peers_share_one_limit() -> None:
    server, theirs = new_signer(), Recorder()
    listener = Listener(server, theirs, max_receiving=3_000_000)
    await listener.start()
    try:
        payload = bytes(1_000_000)
        head, tail = encode(step_of(payload), payload)
        peers = [await RawPeer.authenticated(listener, server.address) for _ in range(4)]
        for peer in peers:
            peer.writer.write(head)
            peer.writer.write(tail[:100])
            await asyncio.sleep(0.02)
        fault, _ = decode(memoryview(await asyncio.wait_for(peers[3].read_frame(), 5)))
        assert isinstance(fault, Fault)
        assert isinstance(from_wire(fault.error), OutOfCapacity)
        for peer in peers[:2]:
            peer.writer.write(tail[100:])  # those that got in are served
        for _ in range(2):
            _, _, got = await theirs.next_message()
            assert got == payload
        peers[2].writer.transport.abort()  # and one that never finishes gives its share back
        await asyncio.sleep(0.05)
        assert listener._budget.used == 0
        for peer in peers:
            peer.writer.transport.abort()
    finally:
        await listener.stop()


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
