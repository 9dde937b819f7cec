"""A delay and a rate between two TCP ports: a long line, as far as the programs at its ends can tell.

    python benchmarks/distance.py --rtt 0.05 [--mbit 100] 127.0.0.2:7000=127.0.0.1:7000 …

Whoever connects to the left address speaks to the right one over a line of `rtt` seconds and `mbit` megabits a second
each way, which all connections to that address share. Bytes keep their order, wait for their turn on the line, and
arrive half a round trip after they have left it. Nothing is lost, and as TCP ends here on both sides, its slow start is
not part of the picture: a real line is slower for the first large message after a pause.

One thread reads and one writes for every direction: threads sleep to within 0.1 ms, where event loops count
milliseconds.
"""

from __future__ import annotations

import argparse
import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue

_PIECE_BYTES = 16 * 1024
_BACKLOG = 128
#: a thread sleeps this much too long, in seconds
_OVERSLEEP = 0.00006


@dataclass(slots=True)
class Line:
    """One direction: `delay` in seconds, `rate` in bytes a second, None without a limit."""

    delay: float
    rate: float | None
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrival(self, size: int, now: float) -> float:
        """When `size` bytes that are handed to the line `now` come out of it, after all that was handed in before."""
        with self._lock:
            busy = 0.0 if self.rate is None else size / self.rate
            self._free_at = max(now, self._free_at) + busy
            return self._free_at + self.delay


def carry(source: socket.socket, sink: socket.socket, line: Line) -> None:
    """Every byte of `source` to `sink`, then its end."""
    under_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    threading.Thread(target=_deliver, args=(under_way, sink), daemon=True).start()
    data = b"."
    while data:
        try:
            data = source.recv(_PIECE_BYTES)
        except OSError:
            data = b""
        under_way.put((line.arrival(len(data), time.monotonic()), data))


def _deliver(under_way: SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
    # Who hangs up meanwhile wants no more of it.
    with suppress(OSError):
        while True:
            due, data = under_way.get()
            time.sleep(max(0.0, due - time.monotonic() - _OVERSLEEP))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


def serve(near: tuple[str, int], far: tuple[str, int], *, rtt: float, rate: float | None) -> None:
    """Listen at `near` for ever, in a thread. Raises OSError where the address is taken."""
    listening = socket.create_server(near, backlog=_BACKLOG)
    there, back = Line(rtt / 2, rate), Line(rtt / 2, rate)

    def accept() -> None:
        while True:
            client, _address = listening.accept()
            threading.Thread(target=connect, args=(client,), daemon=True).start()

    def connect(client: socket.socket) -> None:
        # The caller's own connect took no time: this is the round trip that it would have taken.
        time.sleep(rtt)
        try:
            server = socket.create_connection(far)
        except OSError:
            client.close()
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = [
            threading.Thread(target=carry, args=way, daemon=True)
            for way in ((client, server, there), (server, client, back))
        ]
        for way in ways:
            way.start()

    threading.Thread(target=accept, daemon=True).start()


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtt", type=float, required=True, help="seconds")
    parser.add_argument("--mbit", type=float, help="megabits a second, each way; without: no limit")
    parser.add_argument("lines", nargs="+", help="near:port=far:port")
    args = parser.parse_args()
    for line in args.lines:
        near, _, far = line.partition("=")
        rate = None if args.mbit is None else args.mbit * 1e6 / 8
        serve(_address(near), _address(far), rtt=args.rtt, rate=rate)
    print(json.dumps({"event": "ready"}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
