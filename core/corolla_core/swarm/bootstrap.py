"""A DHT peer that serves nothing: what others join the network through.

    python -m corolla_core.swarm.bootstrap --network devnet --identity PATH --listen /ip4/127.0.0.1/tcp/0

Prints `{"event": "ready", "maddr": …, "maddrs": […], "peer_id": …}` on one line and runs until SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from corolla_core.protocol.errors import CorollaError
from corolla_core.swarm.directory import Directory


def main() -> int:
    parser = argparse.ArgumentParser(description="A bootstrap peer of Corolla's DHT.")
    parser.add_argument("--network", default="devnet", help="announcements of other networks are refused")
    parser.add_argument("--identity", type=Path, help="libp2p key file, created at need; keeps the address stable")
    parser.add_argument("--listen", action="append", help="multiaddr, may be repeated (/ip4/127.0.0.1/tcp/0)")
    parser.add_argument("--join", action="append", default=[], help="multiaddr of another bootstrap peer")
    args = parser.parse_args()
    asked = {"network": args.network, "identity": args.identity, "listen": args.listen, "join": args.join}
    try:
        uvloop.run(serve(**asked, ready=_tell))
    except CorollaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def serve(
    *,
    network: str,
    identity: Path | None,
    listen: Sequence[str] | None,
    join: Sequence[str],
    ready: Callable[[list[str], str], None],
) -> None:
    """Until SIGTERM or SIGINT; `ready` is told the peer's addresses and id. Raises NetworkError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    directory = await Directory.start(network=network, bootstrap=join, identity_path=identity, listen=listen)
    try:
        ready(directory.addresses(), directory.peer_id)
        await stop.wait()
    finally:
        await directory.stop()


def _tell(maddrs: list[str], peer_id: str) -> None:
    sys.stdout.write(json.dumps({"event": "ready", "maddr": maddrs[0], "maddrs": maddrs, "peer_id": peer_id}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
