"""Echo round trips between two processes on loopback, over our connections and under them.

    python benchmarks/transport.py [--rounds 300] [--json]

`corolla` is a Step with its payload through dial and Listener (mutual proof, TLS 1.3, framing, heartbeat); `tcp` is
the same number of bytes through asyncio streams without TLS or framing: what the machine itself costs; `libp2p` is
the fallback path. Rounds of all are interleaved so that a busy machine slows them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

import uvloop

from corolla_core.protocol.errors import NetworkError
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.dial import dial
from corolla_core.swarm.directory import Directory
from corolla_core.swarm.libp2p import Libp2p
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import AnyMessage, Endpoint, Step, Tensor

SIZES = {"2.3 KiB": 2304, "16 KiB": 16384, "1 MiB": 1024 * 1024}
SERVER, CLIENT = Signer(b"\x01" * 32), Signer(b"\x02" * 32)
Echo = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Address:
    endpoint: Endpoint
    tcp_port: int
    bootstrap: list[str]


class EchoHandler:
    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        conn.send(message, payload)

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None: ...


class Waiter:
    """Hands the next answer to whoever waits for it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[int] | None = None

    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        if self.answer is not None:
            self.answer.set_result(len(payload))

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None: ...


async def serve(pipe: Pipe) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = await reader.readexactly(4)
                writer.write(size)
                writer.write(await reader.readexactly(int.from_bytes(size, "big")))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    listener = Listener(SERVER, EchoHandler())
    await listener.start()
    tcp = await asyncio.start_server(plain, "127.0.0.1", 0, limit=2**21)
    directory = await Directory.start(network="bench")
    streams = Libp2p(directory)
    await streams.start(SERVER, EchoHandler())
    endpoint = Endpoint(
        address_bytes(SERVER.address), "127.0.0.1", listener.port, listener.cert_hash, directory.peer_id
    )
    pipe.send(Address(endpoint, tcp.sockets[0].getsockname()[1], directory.addresses()))
    await asyncio.to_thread(pipe.recv)
    await streams.stop()
    await directory.stop()
    await listener.stop()


async def measure(address: Address, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every round, by transport and size."""
    waiters = [Waiter(), Waiter()]
    conn = await dial(address.endpoint, identity=CLIENT, handler=waiters[0])
    directory = await Directory.start(network="bench", bootstrap=address.bootstrap, client_mode=True)
    streams = Libp2p(directory)
    stream = await streams.dial(address.endpoint, identity=CLIENT, handler=waiters[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", address.tcp_port, limit=2**21)

    def over(conn: Connection, waiter: Waiter) -> Echo:
        async def echo(payload: bytes) -> None:
            waiter.answer = asyncio.get_running_loop().create_future()
            conn.send(Step(bytes(16), 1, 0, Tensor("float32", [1, 1, len(payload) // 4]), 1), payload)
            await waiter.answer

        return echo

    async def plain(payload: bytes) -> None:
        writer.write(len(payload).to_bytes(4, "big"))
        writer.write(payload)
        await reader.readexactly(4 + len(payload))

    echoes: dict[str, Echo] = {"tcp": plain, "corolla": over(conn, waiters[0]), "libp2p": over(stream, waiters[1])}
    taken: dict[str, dict[str, list[float]]] = {name: {size: [] for size in SIZES} for name in echoes}
    for size, count in SIZES.items():
        payload = os.urandom(count)
        for turn in range(rounds + 20):
            for name, echo in echoes.items():
                began = time.perf_counter()
                await echo(payload)
                if turn >= 20:
                    taken[name][size].append(time.perf_counter() - began)
    writer.close()
    await conn.close()
    await streams.stop()
    await directory.stop()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description="Echo round trips between two processes.")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_server, args=(theirs,))
    server.start()
    try:
        taken = uvloop.run(measure(ours.recv(), args.rounds))
        ours.send("enough")
        server.join(10)
    finally:
        server.kill()
    rows = [
        {"transport": name, "size": size, "p50_ms": _ms(times, 50), "p99_ms": _ms(times, 99), "rounds": len(times)}
        for name, sizes in taken.items()
        for size, times in sizes.items()
    ]
    if args.json:
        print(json.dumps({"load": os.getloadavg()[0], "cpus": os.cpu_count(), "rows": rows}))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {sys.platform}, uvloop")
    for row in rows:
        print(f"{row['transport']:8} {row['size']:>8}  p50 {row['p50_ms']:7.3f} ms   p99 {row['p99_ms']:7.3f} ms")


def _server(pipe: Pipe) -> None:
    uvloop.run(serve(pipe))


def _ms(times: list[float], percent: int) -> float:
    return round(statistics.quantiles(times, n=100)[percent - 1] * 1000, 3)


if __name__ == "__main__":
    main()
