"""`python -m benchmarks.swarm_sim`: ten thousand nodes place themselves over 126 blocks, and clients route over them.

Prints the table, writes `benchmarks/swarm_sim.json` and, unless told `--no-plots`, docs/img/placement.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import mean, median, quantiles

from rich.console import Console

from benchmarks.placement.clients import Tour, tour
from benchmarks.placement.world import Moment, Node, Rules, Shock, World
from benchmarks.record import Record, record, save, show
from corolla_core.protocol.span import Span

RESULTS = Path(__file__).with_name("swarm_sim.json")
IMAGE = Path(__file__).parents[1] / "docs" / "img" / "placement.png"
COMMAND = "python -m benchmarks.swarm_sim"
HURT = Span(40, 56)


def _a_fifth(_node: Node, rng: Random) -> bool:
    return rng.random() < 0.2


def _europe(node: Node, _rng: Random) -> bool:
    return node.region == 2


def _over_the_hurt(node: Node, _rng: Random) -> bool:
    return node.span.overlaps(HURT)


SHOCKS = (
    Shock(0.75, "a fifth of all nodes at once", _a_fifth),
    Shock(1.5, "a whole region, a quarter of all nodes", _europe),
    Shock(2.25, f"every node over blocks {HURT}", _over_the_hurt),
)
HOURS, CALM = 3.0, 0.25


def quality(moments: Sequence[Moment]) -> list[float]:
    """The worst block's throughput, as a share of what no placement could exceed."""
    return [moment.least / moment.bound for moment in moments]


def seconds_to_fill(history: Sequence[Moment], since: float) -> float:
    """From a time in hours until no block was unserved any more; 0 if none was, infinite if it never came to it."""
    after = [moment for moment in history if moment.hours >= since]
    missing = [moment for moment in after if moment.unserved]
    if not missing:
        return 0.0
    whole = [moment for moment in after if not moment.unserved]
    return (whole[0].hours - since) * 3600 if whole else float("inf")


def moves_per_node_hour(moments: Sequence[Moment]) -> float:
    hours = moments[-1].hours - moments[0].hours
    return sum(m.moves for m in moments[1:]) / mean(m.nodes for m in moments) / hours


def placement_records(world: Sequence[Moment], still: Sequence[Moment]) -> Iterator[Record]:
    """What rebalancing brings, the same world without it as the baseline."""

    def one(name: str, value: float, unit: str, baseline: float | None = None) -> Record:
        return record(name, value, unit, baseline=baseline, command=COMMAND)

    calm = [m for m in world if CALM <= m.hours < SHOCKS[0].hours]
    calm_still = [m for m in still if CALM <= m.hours < SHOCKS[0].hours]
    yield one(
        "bottleneck under churn, median", 100 * median(quality(calm)), "% of bound", 100 * median(quality(calm_still))
    )
    yield one("moves under churn", moves_per_node_hour(calm), "per node and hour")
    for shock, end in zip(SHOCKS, [*(each.hours for each in SHOCKS[1:]), HOURS], strict=True):
        during, during_still = ([m for m in w if shock.hours <= m.hours < end] for w in (world, still))
        yield one(f"{shock.name}: worst bottleneck", 100 * min(quality(during)), "% of bound")
        fills, fills_still = (seconds_to_fill(h, shock.hours) for h in (during, during_still))
        yield one(f"{shock.name}: until no block is unserved", fills, "s", fills_still or None)
        yield one(
            f"{shock.name}: bottleneck from half an hour on, median",
            100 * median(quality([m for m in during if m.hours > shock.hours + 0.5])),
            "% of bound",
            100 * median(quality([m for m in during_still if m.hours > shock.hours + 0.5])),
        )
        yield one(f"{shock.name}: moves until the next", moves_per_node_hour(during), "per node and hour")


def routing_records(tours: Sequence[Tour], nodes: int) -> Iterator[Record]:
    seconds = [each for tour_ in tours for each in tour_.seconds]
    cuts = quantiles(seconds, n=100)
    name = f"find_route among {nodes} candidates"
    yield record(f"{name}, p50", 1e3 * cuts[49], "ms", command=COMMAND)
    yield record(f"{name}, p99", 1e3 * cuts[98], "ms", command=COMMAND)
    for number in (0, 4, len(tours[0].ratios) - 1):
        ratios = [tour_.ratios[number] for tour_ in tours]
        liars = [tour_.liars[number] for tour_ in tours]
        yield record(
            f"seconds a token, session {number + 1}, median", median(ratios), "times the best", command=COMMAND
        )
        yield record(f"hops at exaggerators, session {number + 1}", 100 * mean(liars), "%", command=COMMAND)


def simulate(rules: Rules, seed: int, hours: float) -> list[Moment]:
    return World(rules, seed).run(hours, tuple(shock for shock in SHOCKS if shock.hours < hours)).history


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["placement", "routing"])
    parser.add_argument("--no-plots", action="store_true")
    args = parser.parse_args()
    err, records = Console(stderr=True), list[Record]()
    began = time.monotonic()
    rules, liars = Rules(nodes=args.nodes), Rules(nodes=args.nodes, liars=0.02)
    if args.only != "routing":
        unmoved = replace(rules, rebalance=False)
        with ProcessPoolExecutor(3) as pool:
            runs = [
                pool.submit(simulate, rules, args.seed, HOURS),
                pool.submit(simulate, unmoved, args.seed, HOURS),
                pool.submit(simulate, liars, args.seed, SHOCKS[0].hours),
            ]
            world, still, lying = (run.result() for run in runs)
        err.print(f"three worlds: {time.monotonic() - began:.0f} s", style="dim")
        records += placement_records(world, still)
        name = "bottleneck where 2 % announce 100 times their throughput, median"
        share = 100 * median(quality([m for m in lying if m.hours >= CALM]))
        records.append(record(name, share, "% of bound", command=COMMAND))
        if not args.no_plots:
            from benchmarks.placement.plot import draw

            draw(world, still, SHOCKS, IMAGE)
    if args.only != "placement":
        nodes = World(liars, args.seed).serving()
        tours = [tour(nodes, rules.blocks, sessions=args.sessions, seed=seed) for seed in range(args.clients)]
        records += routing_records(tours, len(nodes))
    save(records, RESULTS)
    show(records, Console(width=140))


if __name__ == "__main__":
    main()
