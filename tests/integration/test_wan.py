"""The emulated WAN takes the time it says, and changes nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import pytest
from benchmarks.distance import Line
from benchmarks.wan import FAR, Wan, distant

from corolla_core.protocol.errors import NetworkError
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.dial import dial
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import AnyMessage, Endpoint, Step, Tensor

pytestmark = pytest.mark.anyio

_SERVER, _CLIENT = Signer(b"\x01" * 32), Signer(b"\x02" * 32)


class _Echo:
    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        conn.send(message, payload)

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None: ...


class _Inbox:
    def __init__(self) -> None:
        self.payloads: asyncio.Queue[bytes] = asyncio.Queue()

    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        self.payloads.put_nowait(bytes(payload))

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None: ...


@asynccontextmanager
async def _far_echo(wan: Wan, folder: Path) -> AsyncIterator[tuple[Connection, _Inbox]]:
    listener, inbox = Listener(_SERVER, _Echo()), _Inbox()
    await listener.start()
    async with distant([listener.port], wan, folder=folder):
        where = Endpoint(address_bytes(_SERVER.address), FAR, listener.port, listener.cert_hash, "")
        conn = await dial(where, identity=_CLIENT, handler=inbox)
        yield conn, inbox
        await conn.close()
        await listener.stop()


def _step(number: int, size: int) -> Step:
    return Step(b"s" * 16, number, 0, Tensor("float32", [1, 1, size // 4]), keep=0)


async def test_a_ping_takes_the_round_trip(tmp_path: Path) -> None:
    async with _far_echo(Wan(rtt=0.03), tmp_path) as (conn, _inbox):
        seconds = median([await conn.ping() for _ in range(9)])
        assert 0.03 <= seconds < 0.08
        assert (conn.rtt or 0.0) >= 0.03  # what a client chooses its route by


async def test_messages_under_way_share_the_delay_and_keep_their_order(tmp_path: Path) -> None:
    async with _far_echo(Wan(rtt=0.05), tmp_path) as (conn, inbox):
        sent = [bytes([number]) * 4096 for number in range(20)]
        began = time.perf_counter()
        for number, payload in enumerate(sent):
            conn.send(_step(number, 4096), payload)
        assert [await inbox.payloads.get() for _ in sent] == sent
        assert 0.05 <= time.perf_counter() - began < 0.5  # one after another would take a second


async def test_bytes_take_their_time_at_the_rate(tmp_path: Path) -> None:
    async with _far_echo(Wan(rtt=0.01, mbit=40), tmp_path) as (conn, inbox):
        payload = bytes(500_000)  # 0.1 s there and, piece by piece at the same time, back
        began = time.perf_counter()
        conn.send(_step(1, len(payload)), payload)
        assert await inbox.payloads.get() == payload
        assert 0.2 <= time.perf_counter() - began < 1.0


def test_a_line_hands_bytes_on_one_after_another() -> None:
    line = Line(delay=1.0, rate=100.0)
    assert line.arrival(50, now=0.0) == 1.5
    assert line.arrival(50, now=0.1) == 2.0  # waits for those before it
    assert line.arrival(50, now=5.0) == 6.5  # the line was free for long
