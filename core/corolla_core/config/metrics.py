"""Prometheus metrics on a port of their own, when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from corolla_core.protocol.errors import NetworkError


def serve_metrics(
    collectors: Iterable[Collector], *, port: int, host: str = "127.0.0.1"
) -> tuple[int, Callable[[], None]]:
    """Serve `/metrics` from a thread, with the process's own figures; returns the port and how to stop.

    Raises NetworkError when the port cannot be had.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise NetworkError(f"cannot serve metrics on {host}:{port}: {error}") from None

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
