"""The deterrence inequality against the simulation: the same cheat at ever smaller stakes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from benchmarks.market.detection import Detection
from benchmarks.market.kinds import KINDS, Kind
from benchmarks.market.report import MILLI, founders, odds, temptation
from benchmarks.market.rules import Rules
from benchmarks.market.world import World
from corolla_core.protocol.deterrence import MARGIN, stake_needed
from corolla_core.protocol.jury import MAX_CHALLENGER_SHARE

CHEAT = next(i for i, kind in enumerate(KINDS) if kind.wary)
"""The attacker that three failures suit best: it behaves in quarantine, so all three must be on real sessions."""
RULES = Rules(
    nodes=480,
    sessions=480,
    epochs=120,
    joins=0.0,
    leave=0.0,
    adversaries=Fraction(1, 2),
    some_stake_more=False,
)
TRIED = (Fraction(1, 16), Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4))


@dataclass(frozen=True, slots=True)
class Point:
    """At least-stake `stake`, when margin 3 asks for `needed`: what cheating gained and slashing took, means a node, in
    milli-Nectar."""

    stake: float
    needed: float
    gained: float
    lost: float


def least_stake(rules: Rules, detection: Detection, kind: Kind, numerics: str = "bf16", margin: int = MARGIN) -> int:
    """The least stake, in nano-Nectar, at which the inequality holds for a fault the jury finds."""
    slashable = stake_needed(
        odds(rules, detection, kind, numerics),
        temptation(rules, kind, numerics),
        own_share=MAX_CHALLENGER_SHARE,
        margin=margin,
    )
    return int(-(-slashable // rules.slash_numerics))


def sweep(detection: Detection, seed: int = 0) -> Iterator[Point]:
    """Every node stakes just the least; the adversaries counted are those of `CHEAT`."""
    needed = least_stake(RULES, detection, KINDS[CHEAT])
    for part in TRIED:
        stake = int(needed * part)
        world = World(replace(RULES, min_stake=stake), detection, seed)
        world.run()
        rows = founders(world) & (world.nodes.kind == CHEAT)
        gained, lost = world.nodes.gained[rows].mean(), world.nodes.slashed[rows].mean()
        yield Point(stake / MILLI, needed / MILLI, float(gained) / MILLI, float(lost) / MILLI)
