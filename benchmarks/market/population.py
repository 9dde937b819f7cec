"""The nodes, as columns: one numpy array per property, one row per node that ever was."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from benchmarks.market.detection import CLASSES, Detection, false_positive
from benchmarks.market.kinds import EARLY_EXIT, HONEST, KINDS
from benchmarks.market.rules import Rules
from corolla_core.protocol.reputation import MAX_EVIDENCE, History, aged
from corolla_core.protocol.units import UnixTime

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PRICE_FACTOR = {"fp32": 1.5, "bf16": 1.0, "int8": 0.65, "nf4": 0.5}
"""What a class costs to compute, and so to buy, against bf16."""
CLASS_MIX = ("bf16", "int8", "bf16", "nf4", "bf16", "fp32")
"""Half of all nodes declare bf16."""
NEVER = -1
EPOCH_SECONDS = 3600


class Status(IntEnum):
    GONE = 0
    ACTIVE = 1
    LEAVING = 2


class Population:
    """Rows `[0, count)` are in use, on machines `[0, machines)`. Every amount is int64 nano-Nectar; times are epochs,
    NEVER where not yet; `place` is where in the unit square the machine stands, `pace` its seconds a block."""

    def __init__(self, rules: Rules, detection: Detection, rng: np.random.Generator, size: int) -> None:
        self.rules, self.detection, self.rng = rules, detection, rng
        self.count = self.machines = 0
        self.kept = aged(History(passed=1.0), UnixTime(EPOCH_SECONDS), rules.terms).passed

        def ints(fill: int = 0) -> Ints:
            return np.full(size, fill, np.int64)

        self.stage, self.numerics, self.kind, self.machine = ints(), ints(), ints(HONEST), ints()
        self.price, self.cost, self.pace, self.place = ints(), ints(), np.zeros(size), np.zeros((size, 2))
        self.stake, self.wallet, self.locked = ints(), ints(), np.zeros((rules.fee_lock, size), np.int64)
        self.endowed = ints()
        self.status, self.genesis, self.studied = ints(), np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        self.down_until, self.jailed_until, self.released_at = ints(), ints(), ints(NEVER)
        self.passed, self.failed, self.score = np.zeros(size), np.zeros(size), np.full(size, np.nan)
        self.false_positive = np.zeros(size)
        # what is told of it afterwards
        self.first_cheat, self.first_flag, self.convicted = ints(NEVER), ints(NEVER), ints(NEVER)
        self.sessions, self.cheated, self.cheated_at_flag = ints(), ints(), ints()
        self.gained, self.slashed, self.owed = ints(), ints(), ints()
        self.revenue = ints()

    def found(self) -> None:
        """The nodes of the first epoch: adversaries of every kind in every class, then the machines studied. All are
        past their probation with a good name, which is the worst case for whoever wants to find them."""
        rules = self.rules
        adversaries = int(rules.nodes * rules.adversaries)
        for i in range(rules.nodes):
            kind = i % len(KINDS) if i < adversaries else HONEST
            turn = i // len(KINDS) if kind != HONEST else i
            self._add(kind, self._class(kind, turn), [self._stake()])
        self.genesis[: self.count] = True
        self.passed[: self.count] = rules.good_name
        first = self.count
        for _ in range(rules.machines):
            stakes = [rules.machine_stake // rules.identities] * rules.identities
            self._add(EARLY_EXIT if rules.machines_cheat else HONEST, "bf16", stakes)
        self.studied[first : self.count] = True
        # Every identity has the name of the whole machine, although it did only a part of its work: the best case.
        self.passed[first : self.count] = 0.0 if rules.machines_new else rules.good_name
        self.settle()

    def join(self) -> int:
        """A newcomer, on probation; one in five cheats once it is past it. Returns its row."""
        cheats = self.rng.random() < self.rules.adversaries
        kind = int(self.rng.integers(len(KINDS))) if cheats else HONEST
        self._add(kind, self._class(kind, int(self.rng.integers(len(CLASS_MIX)))), [self._stake()])
        return self.count - 1

    def forget(self) -> None:
        """An epoch passes: evidence counts less."""
        self.passed *= self.kept
        self.failed *= self.kept

    def settle(self) -> None:
        """Scores are published: the product's `reputation.score`, all at once; of newcomers there is none."""
        terms, evidence = self.rules.terms, self.passed + self.failed
        scale = np.minimum(1.0, MAX_EVIDENCE / np.maximum(evidence, 1.0))
        alpha, beta = terms.prior_alpha + self.passed * scale, terms.prior_beta + self.failed * scale
        self.score = np.where(self.on_probation(), np.nan, betaincinv(alpha, beta, terms.risk))

    def on_probation(self) -> Bools:
        newcomers: Bools = self.passed + self.failed < self.rules.terms.probation
        return newcomers

    def worth(self) -> Ints:
        """All each node owns, locked fees and stake included."""
        owned: Ints = self.wallet + self.stake + self.locked.sum(axis=0)
        return owned

    def serving(self, epoch: int) -> Bools:
        """Who takes sessions now: active, up, out of jail, staked."""
        serving: Bools = (
            (self.status == Status.ACTIVE)
            & (self.down_until <= epoch)
            & (self.jailed_until <= epoch)
            & (self.stake >= self.rules.min_stake)
        )
        return serving

    def _stake(self) -> int:
        more = self.rng.lognormal(-0.5, 0.8) if self.rules.some_stake_more else 0.0
        return int(self.rules.min_stake * (1 + more))

    def _class(self, kind: int, turn: int) -> str:
        """One of those in which the behaviour means something."""
        possible = CLASS_MIX if kind == HONEST else self.detection.possible(KINDS[kind].behaviour, CLASS_MIX)
        return possible[turn % len(possible)]

    def _add(self, kind: int, numerics: str, stakes: list[int]) -> None:
        """One machine, with a node for each stake."""
        first, rules, rng = self.count, self.rules, self.rng
        self.count += len(stakes)
        rows = slice(first, self.count)
        factor, machine = PRICE_FACTOR[numerics], self.machines
        self.machines += 1
        # Shifted by one every round, so that no class, of which each round has the same, ends up in one stage.
        self.stage[rows] = (machine + machine // rules.stages) % rules.stages
        self.machine[rows], self.numerics[rows], self.kind[rows] = machine, CLASSES.index(numerics), kind
        self.price[rows] = int(rules.price * factor * rng.uniform(0.9, 1.1))
        self.cost[rows] = int(rules.cost * factor)
        self.pace[rows], self.place[rows] = 0.005 * rng.lognormal(0.0, 0.3), rng.random(2)
        self.stake[rows], self.wallet[rows] = stakes, rules.wallet // len(stakes)
        self.endowed[rows] = self.stake[rows] + self.wallet[rows]
        self.status[rows] = Status.ACTIVE
        # No two machines' kernels are equally noisy; calibration saw the middle of them.
        self.false_positive[rows] = false_positive(rng.uniform(0.95, 1.05))
