"""What a node counts as it works, for Prometheus.

Amounts are whole base units of Nectar, but Prometheus knows only floats: beyond 2**53 of them (0.009 NECT) the last
digits are rounded off. They are for graphs and alerts; the books (`node earnings`) are exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from corolla_core.protocol.errors import CorollaError
from corolla_node.timings import StepTiming

_PASS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PASS_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_KINDS = ("decode", "prefill")
_GAUGES = {
    "online": ("online", "1 while the node takes new sessions, 0 while it loads, moves or drains"),
    "sessions": ("sessions", "sessions that are open"),
    "queued": ("queued", "steps that wait for the compute thread"),
    "kv_total_bytes": ("kv_total", "the budget of session memory"),
    "kv_reserved_bytes": ("kv_reserved", "session memory that open sessions have reserved"),
    "kv_prefix_bytes": ("prefix_bytes", "free session memory that keeps histories for sessions to come"),
    "vouchers_held_nectar_base_units": ("held", "what vouchers promise and is not redeemed, as of the last look"),
    "challenges_pending": ("challenges_pending", "demands on chain that wait for an opening"),
    "price_nectar_base_units": ("price", "price per token and block"),
    "throughput_tokens_per_second": ("throughput", "decoded tokens a second of compute"),
}
"""The rest of each name, with where the status says it and what it is."""
_COUNTERS = {
    "positions_reused": ("positions_reused", "positions not computed because their history was kept"),
    "vouchers_redeemed_nectar_base_units": ("redeemed", "what redemptions brought"),
    "challenges_answered": ("challenges_answered", "demands for an opening that were answered"),
    "challenges_missed": ("challenges_missed", "demands for an opening that cost stake"),
    "row_bytes_lost": ("row_bytes_lost", "bytes of rows lost that may be asked for on chain"),
    "moves": ("moves", "times the node went over to other blocks"),
}
Status = Callable[[], Mapping[str, Any]]


class Distribution:
    """How often a value fell under each of ascending bounds. There are several to a step, on the event loop, where
    prometheus_client's Histogram would take ten times as long."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum of all values."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True)), self._sum


class StepCounts:
    """Of one kind of step."""

    __slots__ = ("queue", "rows", "seconds", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = Distribution(_PASS_SECONDS)
        self.rows = Distribution(_PASS_ROWS)
        self.queue = Distribution(_PASS_SECONDS)


class NodeMetrics(Collector):
    """Counted from the event loop; one object for the node's life, whatever blocks it serves."""

    def __init__(self) -> None:
        self._refused = Counter(
            "corolla_node_refused", "What peers were refused, by the error's code", ["reason"], registry=None
        )
        self._receipts = Counter("corolla_node_receipts", "Receipts signed", registry=None)
        self._receipted = Counter("corolla_node_receipted_positions", "Positions signed for", registry=None)
        self._receipt_seconds = Counter("corolla_node_receipt_seconds", "Processor time for receipts", registry=None)
        self._vouchers = Counter("corolla_node_vouchers", "Payments looked at", registry=None)
        self._decode, self._prefill = StepCounts(), StepCounts()

    def step(self, timing: StepTiming, *, single: bool) -> None:
        counts = self._decode if single else self._prefill
        counts.tokens += timing.tokens
        counts.seconds.add(timing.compute)
        counts.rows.add(timing.pass_rows)
        counts.queue.add(timing.queue)

    def refused(self, error: CorollaError) -> None:
        self._refused.labels(error.code).inc()

    def receipt(self, seconds: float, positions: int) -> None:
        self._receipts.inc()
        self._receipted.inc(positions)
        self._receipt_seconds.inc(seconds)

    def voucher(self) -> None:
        self._vouchers.inc()

    def collect(self) -> Iterator[Metric]:
        for counter in (self._refused, self._receipts, self._receipted, self._receipt_seconds, self._vouchers):
            yield from counter.collect()
        tokens = CounterMetricFamily(
            "corolla_node_tokens",
            "positions computed, over all rows of a batch: one at a time (decode) or several at once (prefill)",
            labels=["kind"],
        )
        kinds = {"decode": self._decode, "prefill": self._prefill}
        for kind, counts in kinds.items():
            tokens.add_metric([kind], counts.tokens)
        yield tokens
        for name, what, chosen in _DISTRIBUTIONS:
            family = HistogramMetricFamily(f"corolla_node_{name}", what, labels=["kind"])
            for kind, counts in kinds.items():
                buckets, total = chosen(counts).buckets()
                family.add_metric([kind], buckets, total)
            yield family


_DISTRIBUTIONS: tuple[tuple[str, str, Callable[[StepCounts], Distribution]], ...] = (
    ("pass_seconds", "the forward pass that a step was computed in", lambda counts: counts.seconds),
    ("pass_rows", "positions of all sessions in that pass: the batch size", lambda counts: counts.rows),
    ("queue_seconds", "how long a step waited for the compute thread", lambda counts: counts.queue),
)


class StatusCollector(Collector):
    """What the node's status says at each scrape."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        for name, (key, what) in _GAUGES.items():
            yield GaugeMetricFamily(f"corolla_node_{name}", what, value=float(status[key]))
        for name, (key, what) in _COUNTERS.items():
            yield CounterMetricFamily(f"corolla_node_{name}", what, value=float(status[key]))
        peers = GaugeMetricFamily("corolla_node_peers", "connections that stand, by who dialed", labels=["dialed_by"])
        peers.add_metric(["peer"], float(status["peers_in"]))
        peers.add_metric(["node"], float(status["peers_out"]))
        yield peers
        medians = GaugeMetricFamily(
            "corolla_node_step_milliseconds", "median of each part of a recent step", labels=["kind", "part"]
        )
        for kind in _KINDS:
            for part, value in status["timings"][kind]["median_ms"].items():
                medians.add_metric([kind, part], value)
        yield medians
