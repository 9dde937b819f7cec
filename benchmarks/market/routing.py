"""Clients choose nodes by reputation, price and capped stake, within what each machine can serve."""

from __future__ import annotations

import numpy as np

from benchmarks.market.population import Bools, Floats, Ints, Population

PROBATION_SESSIONS = 1
"""Sessions an epoch a newcomer may have."""


def attraction(nodes: Population) -> Floats:
    """`bound² × (usual price / price)³ × min(stake, cap)`: what a node's share of its stage's sessions is made of."""
    cheapness = (nodes.rules.price / np.maximum(nodes.price, 1)) ** 3
    weighed: Floats = nodes.bound() ** 2 * cheapness * np.minimum(nodes.stake, nodes.rules.stake_cap)
    return np.where(nodes.probation > 0, 0.1 * weighed, weighed)


def route(nodes: Population, epoch: int, sessions: int) -> Ints:
    """The node of each stage for each session: (stages, sessions).

    Who is full passes its overflow on, three times; what is left then waits at whoever it was drawn for.
    """
    weights = np.where(nodes.serving(epoch), attraction(nodes), 0.0)
    newcomers = nodes.probation > 0
    chosen = np.empty((nodes.rules.stages, sessions), np.int64)
    for stage in range(nodes.rules.stages):
        here = np.where(nodes.stage == stage, weights, 0.0)
        picks = nodes.rng.choice(len(here), size=sessions, p=here / here.sum())
        for _ in range(3):
            over = _overflow(nodes, picks, newcomers)
            if not over.any():
                break
            full = np.isin(nodes.machine, nodes.machine[picks[over]])
            spare = np.where(full, 0.0, here)
            if spare.sum() == 0:
                break
            picks[over] = nodes.rng.choice(len(here), size=int(over.sum()), p=spare / spare.sum())
        chosen[stage] = picks
    return chosen


def _overflow(nodes: Population, picks: Ints, newcomers: Bools) -> Bools:
    """Which picks go beyond their machine's capacity, or a newcomer's allowance."""
    machines = nodes.machine[picks]
    order = np.argsort(machines, kind="stable")
    ordered = machines[order]
    first = np.searchsorted(ordered, ordered, side="left")
    nth = np.empty(len(picks), np.int64)
    nth[order] = np.arange(len(picks)) - first
    over: Bools = nth >= np.where(newcomers[picks], PROBATION_SESSIONS, nodes.rules.capacity)
    return over
