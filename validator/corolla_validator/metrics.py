"""What a validator does, for Prometheus: a fold over the events it tells of, and how far behind it is.

Label values are all its own words, never a peer's: outcomes, kinds of faults, codes of typed errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from corolla_validator.ports import Clock, Tell

_COUNTED = {
    "audit": ("audits", "outcome", "Sessions judged"),
    "possession": ("possessions", "outcome", "Times a node was asked to show its weights"),
    "withheld": ("withheld", None, "Sessions whose rows a node did not open"),
    "fault": ("faults", "fault", "Nodes that their own signatures convict"),
    "proven": ("proven", "fault", "Such proofs that the chain took"),
    "accused": ("disputes", None, "Nodes taken before the jury"),
    "vote": ("votes", "vote", "Votes cast as a juror"),
    "verdict": ("verdicts", "outcome", "Disputes that ended"),
    "probe": ("probes", "outcome", "Answers ordered as a client would"),
    "trouble": ("trouble", "error", "Rounds that failed, by the error's code"),
}
"""The metric that an event counts in, the event's field that labels it, and what it is."""
_STAGES = {"scores committed": "committed", "scores revealed": "revealed", "scores settled": "settled"} | {
    "scores lost": "lost"
}
_DEMANDS = ("challenged", "opened", "punished", "lapsed")


class Audits(Protocol):
    """The part of `Rounds` that is looked at, from the thread that a scrape comes on."""

    @property
    def backlog(self) -> list[float]: ...

    @property
    def online(self) -> int: ...

    async def round(self) -> None: ...


class ValidatorMetrics(Collector):
    """Wrap its `tell` in `counting`, and run its rounds by `round_of`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_round = clock()
        self._audits: Audits | None = None
        counters = {
            event: Counter(f"corolla_validator_{name}", what, [label] if label else [], registry=None)
            for event, (name, label, what) in _COUNTED.items()
        }
        self._counters = counters
        self._scores = Counter("corolla_validator_scores", "Sheets of scores, by stage", ["stage"], registry=None)
        self._demands = Counter(
            "corolla_validator_openings_demanded",
            "Openings demanded on chain, and ends",
            ["state"],
            registry=None,
        )

    def counting(self, tell: Tell) -> Tell:
        """Counts each event before it is told."""

        def told(event: dict[str, object]) -> None:
            self.count(event)
            tell(event)

        return told

    def count(self, event: dict[str, object]) -> None:
        name = str(event["event"])
        if name in _COUNTED:
            label = _COUNTED[name][1]
            counter = self._counters[name]
            (counter.labels(str(event[label])) if label else counter).inc()
        elif name in _STAGES:
            self._scores.labels(_STAGES[name]).inc()
        elif name in _DEMANDS:
            self._demands.labels(name).inc()

    def round_of(self, audits: Audits) -> Callable[[], Awaitable[None]]:
        """`audits.round`, noting when one went through."""
        self._audits = audits

        async def run() -> None:
            await audits.round()
            self._last_round = self._clock()

        return run

    def collect(self) -> Iterator[Metric]:
        for counter in (*self._counters.values(), self._scores, self._demands):
            yield from counter.collect()
        now = self._clock()
        drawn = [] if self._audits is None else self._audits.backlog
        for name, what, value in (
            ("lag_seconds", "since all that was drawn had been looked at", now - self._last_round),
            ("waiting_audits", "drawn sessions whose rows are yet to be judged", len(drawn)),
            ("oldest_waiting_seconds", "since the oldest of them was drawn", now - min(drawn, default=now)),
            ("nodes_online", "nodes seen in the last round", 0 if self._audits is None else self._audits.online),
        ):
            yield GaugeMetricFamily(f"corolla_validator_{name}", what, value=float(value))
