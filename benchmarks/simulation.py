"""`python -m benchmarks.simulation`: who is caught, how soon, and what cheating brought, in a thousand nodes' market.

Prints the tables, writes `benchmarks/simulation.json` and, unless told `--no-plots`, the PNGs of docs/img.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.market.court import capture
from benchmarks.market.detection import Detection, load_detection
from benchmarks.market.report import Summary, summarise
from benchmarks.market.rules import Rules
from benchmarks.market.sweep import Point, sweep
from benchmarks.market.world import World
from benchmarks.record import Record, record, save

RESULTS = Path(__file__).with_name("simulation.json")
IMAGES = Path(__file__).parents[1] / "docs" / "img"
COMMAND = "python -m benchmarks.simulation"


def fates_table(summary: Summary) -> Table:
    table = Table(
        title="Adversaries of the first epoch, honest nodes of their classes beside them (means a node, milli-Nectar)",
        title_justify="left",
    )
    for heading in (
        "kind",
        "classes",
        "nodes",
        "flagged",
        "slashed",
        "epochs to flag",
        "epochs to slash",
        "p90",
        "cheats before flag",
        "gained",
        "lost",
        "net",
        "honest",
        "inequality",
        "up to",
    ):
        table.add_column(heading, justify="left" if heading in {"kind", "classes"} else "right")
    for fate in summary.fates:
        table.add_row(
            fate.kind.name,
            "all" if len(fate.classes) == 4 else " ".join(fate.classes),
            str(fate.nodes),
            f"{fate.flagged:.0%}",
            f"{fate.slashed:.0%}",
            _number(fate.to_flag),
            _number(fate.to_slash),
            _number(fate.to_slash_p90),
            _number(fate.cheats_before_flag),
            f"{fate.gained:.1f}",
            f"{fate.lost:.1f}",
            f"{fate.net:+.0f}",
            f"{fate.honest:+.0f}",
            "holds" if fate.deterred else "fails",
            f"{fate.up_to:.0%}",
        )
    return table


def records(summary: Summary) -> Iterator[Record]:
    """The repository's record form; a baseline is honest nodes of the classes."""

    def one(name: str, value: float, unit: str, baseline: float | None = None) -> Record:
        return record(name, value, unit, baseline=baseline, command=COMMAND)

    yield one("audits of honest work", summary.honest_audits, "audits")
    yield one("audits that flagged an honest node", summary.honest_flagged, "audits")
    yield one("honest nodes slashed", summary.honest_slashed, "nodes")
    yield one("false accusations before a jury", summary.false_disputes, "disputes")
    yield one("net of an honest node", summary.honest_net, "mNectar")
    for fate in summary.fates:
        name = f"{fate.kind.name}, {'seen' if fate.seen else 'not seen'} ({' '.join(fate.classes)})"
        yield one(f"{name}: slashed", fate.slashed, "share of nodes")
        if fate.to_slash is not None:
            yield one(f"{name}: time to slash, median", fate.to_slash, "epochs")
        yield one(f"{name}: net", fate.net, "mNectar", fate.honest)
        yield one(f"{name}: most a session may bring to be deterred, m = 3", 100 * fate.up_to, "% of its fee")
    for role, earned in summary.validators.items():
        yield one(f"net of a {role.name.lower().replace('_', ' ')} validator", earned, "mNectar")
    for epoch in (0, len(summary.traffic) // 4, len(summary.traffic) - 1):
        yield one(f"traffic to visible cheats, epoch {epoch}", 100 * summary.traffic[epoch, 0], "%")
        yield one(f"traffic to invisible cheats, epoch {epoch}", 100 * summary.traffic[epoch, 1], "%")


def sweep_table(points: list[Point]) -> Table:
    table = Table(title="Early exit at smaller stakes: when cheating pays", title_justify="left")
    for heading in ("least stake, mNectar", "of what m = 3 asks", "gained", "lost", "pays"):
        table.add_column(heading, justify="right")
    for each in points:
        table.add_row(
            f"{each.stake:.1f}",
            f"{each.stake / each.needed:.2f}",
            f"{each.gained:.1f}",
            f"{each.lost:.1f}",
            "yes" if each.gained > each.lost else "no",
        )
    return table


def simulate(rules: Rules, detection: Detection, seed: int) -> World:
    """One world from beginning to end."""
    return World(rules, detection, seed).run()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--sessions", type=int, default=1000, help="an epoch")
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--jobs", type=int, default=1, help="worlds at a time, each a process")
    parser.add_argument("--no-plots", action="store_true")
    args = parser.parse_args()
    out, err = Console(width=220), Console(stderr=True)
    rules, detection = Rules(epochs=args.epochs, sessions=args.sessions), load_detection()
    began, worlds = time.monotonic(), []
    with ProcessPoolExecutor(args.jobs) as pool:
        for world in pool.map(partial(simulate, rules, detection), range(args.seed, args.seed + args.worlds)):
            worlds.append(world)
            err.print(f"world {world.seed}: {time.monotonic() - began:.0f} s", style="dim")
    summary, points = summarise(worlds), list(sweep(detection))
    out.print(fates_table(summary))
    out.print(sweep_table(points))
    earned = ", ".join(f"{role.name.lower().replace('_', ' ')} {net:+.0f}" for role, net in summary.validators.items())
    out.print(f"an honest node's net, mNectar: {summary.honest_net:+.0f}")
    out.print(f"a validator's net, mNectar: {earned}")
    out.print(f"refunded to clients {summary.refunded:.0f} mNectar a world, still owed {summary.still_owed:.0f}")
    out.print(
        f"honest audits {summary.honest_audits}, flagged {summary.honest_flagged}, slashed {summary.honest_slashed}"
    )
    out.print(
        f"disputes {summary.disputes}, of them false accusations {summary.false_disputes}; "
        f"juries won by the bribed before appeal {summary.overturned}, drawn {summary.draws}; "
        f"ε of the last jury {float(capture(rules)):.1e}"
    )
    save(list(records(summary)), RESULTS)
    if not args.no_plots:
        from benchmarks.market.plots import draw_all

        draw_all(summary, points, rules, IMAGES)


if __name__ == "__main__":
    main()
