"""A devnet whose nodes are far from each other and from the client: every connection to a node crosses a line with a
delay and a rate (see `distance`). `tc netem` would do it below TCP; it needs a kernel module that few containers have.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.process import Child

NEAR, FAR = "127.0.0.1", "127.0.0.2"
_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Wan:
    """`rtt` in seconds; `mbit` a second to and from each node, None without a limit."""

    rtt: float
    mbit: float | None = None

    def __str__(self) -> str:
        rate = "" if self.mbit is None else f", {self.mbit:g} Mbit/s"
        return f"{self.rtt * 1e3:g} ms RTT{rate}"


@asynccontextmanager
async def distant(ports: Sequence[int], wan: Wan, *, folder: Path) -> AsyncIterator[None]:
    """What listens on these ports of `NEAR` is also reached at `FAR`, across the line. Raises ProcessFailed."""
    script = str(Path(__file__).with_name("distance.py"))
    rate = [] if wan.mbit is None else [f"--mbit={wan.mbit}"]
    lines = [f"{FAR}:{port}={NEAR}:{port}" for port in ports]
    child = Child.start(
        "wan", [sys.executable, script, f"--rtt={wan.rtt}", *rate, *lines], folder=folder, env=os.environ
    )
    try:
        await child.wait_event("event", "ready", within=_START_SECONDS)
        yield
    finally:
        await child.stop(grace=1.0)


@asynccontextmanager
async def far_devnet(plan: DevnetPlan, wan: Wan, *, home: Path) -> AsyncIterator[Devnet]:
    """A devnet whose nodes are reached across `wan` only, by the client and by each other. A node that is started
    again takes another port and is then out of reach."""
    away = replace(plan, settings={**plan.settings, "public_host": FAR})
    async with Devnet(away, home=home) as devnet:
        ports = [node.ready["port"] for node in devnet.all_nodes]
        async with distant(ports, wan, folder=devnet.folder):
            yield devnet
