"""Prometheus metrics on a port of their own, when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_GAUGES = ("sessions", "queued", "kv_free", "kv_total", "prefix_bytes", "challenges_pending")
_COUNTERS = (
    "tokens_served",
    "positions_reused",
    "redeemed",
    "challenges_answered",
    "challenges_missed",
    "row_bytes_lost",
)


class _StatusCollector(Collector):
    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        for name in _GAUGES:
            yield GaugeMetricFamily(f"corolla_node_{name}", f"{name} of the node", value=float(status[name]))
        for name in _COUNTERS:
            yield CounterMetricFamily(f"corolla_node_{name}", f"{name} since start", value=float(status[name]))
        receipts = status["timings"]
        yield CounterMetricFamily(
            "corolla_node_receipted_positions",
            "positions signed for since start",
            value=float(receipts["receipted"]),
        )
        yield CounterMetricFamily(
            "corolla_node_receipt_seconds", "processor time for receipts since start", value=receipts["receipt_seconds"]
        )
        for kind in ("decode", "prefill"):
            medians = GaugeMetricFamily(
                f"corolla_node_{kind}_milliseconds", f"median of each part of a {kind} step", labels=["part"]
            )
            for part, value in status["timings"][kind]["median_ms"].items():
                medians.add_metric([part], value)
            yield medians


def serve_metrics(port: int, status: Callable[[], dict[str, Any]]) -> tuple[int, Callable[[], None]]:
    """Serve `/metrics` on loopback from a thread; returns the port and how to stop. `status` is read at each scrape."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, stop
