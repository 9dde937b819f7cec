"""The gateway as a server in a running event loop."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from corolla_core.protocol.errors import ConfigError

#: Connections at once. Each holds a request's body and its text; more are told 503 by uvicorn itself.
MAX_CONNECTIONS = 2000


async def serve(app: FastAPI, *, host: str, port: int, drain_timeout: float, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then take no more requests, and let running answers end for `drain_timeout`
    seconds. A second signal does not wait. `on_ready` gets the URL. Raises ConfigError where it cannot listen."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    allow_files(2 * MAX_CONNECTIONS)
    with listening:
        at = f"[{host}]" if ":" in host else host
        url = f"http://{at}:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(drain_timeout)),
        )
        server = _Server(config, lambda: on_ready(url))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        try:
            await server.serve(sockets=[listening])
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def allow_files(wanted: int) -> int:
    """Let this process open so many files, as far as the system lets it; returns how many it may. Each connection is
    one, and many systems give a process 1024 unless it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    def stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end, before the client has settled with its nodes
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()
