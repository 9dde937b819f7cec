"""What one or several simulated worlds showed, in figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from benchmarks.market.court import Role, capture
from benchmarks.market.detection import CLASSES, Detection
from benchmarks.market.kinds import HONEST, KINDS, Fault, Kind
from benchmarks.market.population import NEVER, PRICE_FACTOR, Bools, Floats, Ints
from benchmarks.market.rules import Rules
from benchmarks.market.world import World
from corolla_core.protocol.deterrence import MARGIN, Exposure, Odds, Temptation, deters
from corolla_core.protocol.jury import MAX_CHALLENGER_SHARE
from corolla_core.protocol.units import Nectar

MILLI = 1_000_000
"""One thousandth of a Nectar, in nano-Nectar: the unit of every amount reported."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the first adversaries of one kind, in the classes where audits see it or in those where not.

    Times are epochs from the first cheat, None where nobody got so far. Amounts are means a node, in milli-Nectar:
    `gained` by cheating, `lost` to slashing, `net` all in all, and `honest`, what honest nodes netted in these classes.
    `deterred` is whether the inequality holds in all of these classes, `up_to` the most a cheated session may bring for
    that, as a share of its fee.
    """

    kind: Kind
    seen: bool
    classes: tuple[str, ...]
    nodes: int
    flagged: float
    slashed: float
    to_flag: float | None
    to_slash: float | None
    to_slash_p90: float | None
    cheats_before_flag: float | None
    gained: float
    lost: float
    net: float
    honest: float
    deterred: bool
    up_to: float


@dataclass(frozen=True, slots=True)
class Summary:
    """`traffic` is (epochs, 2): the share of hops served by cheats audits can see, and by those they cannot.

    `validators` is what each role netted, a mean; `refunded` and `still_owed` what clients got and did not get back of
    the fees they paid to nodes since convicted, a mean a world; all in milli-Nectar.
    """

    worlds: int
    audits: int
    honest_audits: int
    honest_flagged: int
    honest_slashed: int
    disputes: int
    false_disputes: int
    draws: int
    overturned: int
    honest_net: float
    fates: tuple[Fate, ...]
    validators: Mapping[Role, float]
    refunded: float
    still_owed: float
    traffic: Floats


def deterred(rules: Rules, detection: Detection, kind: Kind, numerics: str) -> bool:
    """Whether the deterrence inequality holds for a node of the least stake, at the protocol's margin."""
    tempted = temptation(rules, kind, numerics)
    return deters(odds(rules, detection, kind, numerics), tempted, exposure(rules, kind))


def most_deterred(rules: Rules, detection: Detection, kind: Kind, numerics: str) -> Fraction:
    """The most a cheated session may bring, as a share of its average fee, for the inequality to hold at the margin."""
    fee = int(rules.price * PRICE_FACTOR[numerics]) * rules.mean_tokens * rules.blocks
    punished = odds(rules, detection, kind, numerics).punished
    return exposure(rules, kind).loss * punished / (MARGIN * (1 - punished)) / fee


def exposure(rules: Rules, kind: Kind) -> Exposure:
    """What a node of the least stake loses: F is nothing, and a the challenger's full share."""
    slash = {Fault.NUMERICS: rules.slash_numerics, Fault.PROVEN: Fraction(1), Fault.WITHHELD: rules.slash_withheld}
    return Exposure(Nectar(int(rules.min_stake * slash[kind.fault])), own_share=MAX_CHALLENGER_SHARE)


def odds(rules: Rules, detection: Detection, kind: Kind, numerics: str) -> Odds:
    """p is what diligent validators draw of all sessions, ε what the bribed win of the last juries."""
    diligent = Fraction(rules.validators - rules.lazy, rules.validators)
    return Odds(rules.audit * diligent, detection.power(kind.behaviour, numerics), capture(rules))


def temptation(rules: Rules, kind: Kind, numerics: str) -> Temptation:
    """What cheating on one hop of an average session brings."""
    cost = int(rules.cost * PRICE_FACTOR[numerics]) * rules.mean_tokens * rules.blocks
    return Temptation(Nectar(cost * kind.saved // 1000), Nectar(kind.bribe))


def summarise(worlds: Sequence[World]) -> Summary:
    """Worlds of the same rules, pooled."""
    tallies = [world.tally for world in worlds]
    honest = np.array([_honest_net(worlds, (c,)) for c in range(len(CLASSES))])
    fates = (_fate(worlds, index, seen=seen, honest=honest) for index in range(len(KINDS)) for seen in (True, False))
    return Summary(
        worlds=len(worlds),
        audits=sum(t.audits for t in tallies),
        honest_audits=sum(t.honest_audits for t in tallies),
        honest_flagged=sum(t.honest_flagged for t in tallies),
        honest_slashed=sum(t.honest_slashed for t in tallies),
        disputes=sum(t.disputes for t in tallies),
        false_disputes=sum(t.false_disputes for t in tallies),
        draws=sum(t.draws for t in tallies),
        overturned=sum(t.overturned for t in tallies),
        honest_net=_honest_net(worlds, range(len(CLASSES))),
        fates=tuple(fate for fate in fates if fate is not None),
        validators={role: _earned(worlds, role) for role in Role},
        refunded=sum(w.books.refunded for w in worlds) / MILLI / len(worlds),
        still_owed=sum(int(w.nodes.owed[_gone(w)].sum()) for w in worlds) / MILLI / len(worlds),
        traffic=np.mean([t.traffic for t in tallies], axis=0),
    )


def founders(world: World) -> Bools:
    """The nodes of the first epoch, but for the machines studied."""
    return world.nodes.genesis


def net(world: World) -> Floats:
    """What each node owns more than at its start, in milli-Nectar."""
    change: Floats = (world.nodes.worth() - world.nodes.endowed) / MILLI
    return change


def _fate(worlds: Sequence[World], index: int, *, seen: bool, honest: Floats) -> Fate | None:
    kind, first = KINDS[index], worlds[0]

    def rows(world: World) -> Bools:
        visible = world.visible[index, world.nodes.numerics]
        chosen: Bools = founders(world) & (world.nodes.kind == index) & (visible == seen)
        return chosen

    nets = _pool(worlds, rows, net)
    if not len(nets):
        return None
    began = _pool(worlds, rows, lambda w: w.nodes.first_cheat)
    flag = _pool(worlds, rows, lambda w: w.nodes.first_flag)
    end = _pool(worlds, rows, lambda w: w.nodes.convicted)
    before = _pool(worlds, rows, lambda w: w.nodes.cheated_at_flag)
    caught, convicted = flag != NEVER, end != NEVER
    possible = first.nodes.detection.possible(kind.behaviour, CLASSES)
    classes = tuple(name for name in possible if first.visible[index, CLASSES.index(name)] == seen)
    return Fate(
        kind=kind,
        seen=seen,
        classes=classes,
        nodes=len(nets),
        flagged=float(caught.mean()),
        slashed=float(convicted.mean()),
        to_flag=float(np.median((flag - began)[caught])) if caught.any() else None,
        to_slash=float(np.median((end - began)[convicted])) if convicted.any() else None,
        to_slash_p90=float(np.quantile((end - began)[convicted], 0.9)) if convicted.any() else None,
        cheats_before_flag=float(before[caught].mean()) if caught.any() else None,
        gained=float(_pool(worlds, rows, lambda w: w.nodes.gained).mean()) / MILLI,
        lost=float(_pool(worlds, rows, lambda w: w.nodes.slashed).mean()) / MILLI,
        net=float(nets.mean()),
        honest=float(honest[_pool(worlds, rows, lambda w: w.nodes.numerics).astype(np.int64)].mean()),
        deterred=all(deterred(first.rules, first.nodes.detection, kind, name) for name in classes),
        up_to=float(min(most_deterred(first.rules, first.nodes.detection, kind, name) for name in classes)),
    )


def _honest_net(worlds: Sequence[World], numerics: Collection[int]) -> float:
    """The mean of honest founders of these classes, which differ in price and so in traffic."""

    def rows(world: World) -> Bools:
        nodes = world.nodes
        chosen: Bools = founders(world) & (nodes.kind == HONEST) & np.isin(nodes.numerics, list(numerics))
        return chosen

    return float(_pool(worlds, rows, net).mean())


def _earned(worlds: Sequence[World], role: Role) -> float:
    pooled = []
    for validators in (world.validators for world in worlds):
        pooled.append((validators.stake + validators.wallet - validators.endowed)[validators.role == role])
    return float(np.concatenate(pooled).mean()) / MILLI


def _gone(world: World) -> Bools:
    convicted: Bools = (world.nodes.convicted != NEVER) & (world.nodes.stake == 0)
    return convicted


def _pool(worlds: Sequence[World], rows: Callable[[World], Bools], column: Callable[[World], Floats | Ints]) -> Floats:
    return np.concatenate([column(world)[rows(world)] for world in worlds])
