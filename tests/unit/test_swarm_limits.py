"""What one peer can cost another: strangers, readers that do not read, floods, unfinished tensors."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from swarm_peers import HASTY, RawPeer, Recorder, anyio_backend, endpoint_of, listening, new_signer, step_of

from corolla_core.protocol.errors import (
    NetworkError,
    OutOfCapacity,
    PeerTimeout,
    from_wire,
)
from corolla_core.swarm.connection import Policy
from corolla_core.swarm.dial import dial
from corolla_core.swarm.frame import decode, encode
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import Close, Fault, Ping

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio
SESSION = bytes(16)


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
