"""`python -m benchmarks.sybils`: what an owner gains by splitting one machine and one stake over many identities.

The same worlds, seed for seed, with the machines studied as one identity each and as k: each machine is compared with
itself. Prints the table and writes `benchmarks/sybils.json`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.market.detection import Detection, load_detection
from benchmarks.market.population import Floats
from benchmarks.market.report import MILLI
from benchmarks.market.rules import Rules
from benchmarks.market.world import World
from benchmarks.record import Record, record, save

RESULTS = Path(__file__).with_name("sybils.json")
COMMAND = "python -m benchmarks.sybils"
RULES = Rules(nodes=120, sessions=120, epochs=60, clients=24, machines=12)
WORLDS = 12
SETTINGS = (
    ("honest, each with the whole machine's good name", RULES, (1, 2, 4, 8, 16), WORLDS),
    ("honest, all new", replace(RULES, machines_new=True), (1, 4, 16), WORLDS // 2),
    ("cheating, each with a good name", replace(RULES, machines_cheat=True), (1, 4, 16), WORLDS // 2),
    ("as first, unmeasured nodes taken to be near", replace(RULES, unmeasured=0.02), (1, 4, 16), WORLDS // 2),
)
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and where 95 % of its bootstrap resamples lie."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Split:
    """Machines of k `identities` against themselves as one: the sessions a machine got and what it netted, in
    milli-Nectar; `more` is how many sessions more than as one, `gain` how much more net, as a share of its revenue.
    """

    setting: str
    identities: int
    worlds: int
    sessions: float
    net: float
    more: Interval
    gain: Interval


def outcome(rules: Rules, detection: Detection, seed: int) -> Floats:
    """(3,): sessions, net and revenue in milli-Nectar, of one world's machines: means a machine."""
    world = World(rules, detection, seed).run()
    nodes = world.nodes
    rows = nodes.studied
    net = (nodes.worth() - nodes.endowed)[rows].sum() / MILLI
    revenue = nodes.revenue[rows].sum() / MILLI
    each: Floats = np.array([nodes.sessions[rows].sum(), net, revenue]) / rules.machines
    return each


def compare(
    setting: str, rules: Rules, detection: Detection, seeds: Sequence[int], splits: Sequence[int]
) -> Iterator[Split]:
    """Each of `splits`, the first of which they are compared with."""
    worlds: dict[int, Floats] = {}
    for k in splits:
        worlds[k] = np.array([outcome(replace(rules, identities=k), detection, seed) for seed in seeds])
        whole = worlds[splits[0]]
        more = ratio(worlds[k][:, 0] - whole[:, 0], whole[:, 0])
        gain = ratio(worlds[k][:, 1] - whole[:, 1], whole[:, 2])
        yield Split(setting, k, len(seeds), float(worlds[k][:, 0].mean()), float(worlds[k][:, 1].mean()), more, gain)


def ratio(differences: Floats, of: Floats) -> Interval:
    """The sum of paired differences over the sum of what they are differences of, worlds drawn with replacement."""
    drawn = np.random.default_rng(0).integers(len(of), size=(_RESAMPLES, len(of)))
    resampled = differences[drawn].sum(axis=1) / of[drawn].sum(axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Interval(float(differences.sum() / of.sum()), float(low), float(high))


def table(found: Sequence[Split]) -> Table:
    shown = Table(title="One machine and one stake as k identities (means a machine)", title_justify="left")
    for heading in ("setting", "k", "worlds", "sessions", "net", "sessions more (95 %)", "net more, of revenue (95 %)"):
        shown.add_column(heading, justify="left" if heading == "setting" else "right")
    for each in found:
        shown.add_row(
            each.setting,
            str(each.identities),
            str(each.worlds),
            f"{each.sessions:.0f}",
            f"{each.net:+.0f}",
            _percent(each.more),
            _percent(each.gain),
        )
    return shown


def records(found: Sequence[Split]) -> Iterator[Record]:
    for each in found:
        name = f"{each.setting}, {each.identities} identities"
        yield record(f"{name}: net a machine", each.net, "mNectar", command=COMMAND)
        for what, interval in (("sessions", each.more), ("net", each.gain)):
            for end, value in (("mean", interval.mean), ("low", interval.low), ("high", interval.high)):
                yield record(f"{name}: {what} more than as one, {end}", 100 * value, "%", command=COMMAND)


def _percent(interval: Interval) -> str:
    return f"{interval.mean:+.1%} ({interval.low:+.1%} to {interval.high:+.1%})"


def main() -> None:
    argparse.ArgumentParser(prog=COMMAND, description=__doc__).parse_args()
    err, found, began = Console(stderr=True), list[Split](), time.monotonic()
    for setting, rules, splits, worlds in SETTINGS:
        for each in compare(setting, rules, load_detection(), range(worlds), splits):
            found.append(each)
            err.print(f"{setting}, {each.identities}: {time.monotonic() - began:.0f} s", style="dim")
            save(list(records(found)), RESULTS)
    Console(width=160).print(table(found))


if __name__ == "__main__":
    main()
