"""The nodes, as columns: one numpy array per property, one row per node that ever was."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from benchmarks.market.detection import CLASSES, Detection
from benchmarks.market.kinds import EARLY_EXIT, HONEST, KINDS
from benchmarks.market.rules import Rules

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PRICE_FACTOR = {"fp32": 1.5, "tf32": 1.2, "fp16": 1.1, "bf16": 1.0}
"""What a class costs to compute, and so to buy, against bf16."""
CLASS_MIX = ("bf16", "fp16", "bf16", "tf32", "bf16", "fp32")
"""Half of all nodes, honest or not, declare bf16."""
NEVER = -1


class Status(IntEnum):
    GONE = 0
    ACTIVE = 1
    SUSPENDED = 2
    LEAVING = 3


class Group(IntEnum):
    NONE = 0
    SYBIL = 1
    SINGLE = 2
    CHEATING_SYBIL = 3
    CHEATING_SINGLE = 4


class Population:
    """Rows `[0, count)` are in use. Every amount is int64 nano-Nectar; times are epochs, NEVER where not yet."""

    def __init__(self, rules: Rules, detection: Detection, rng: np.random.Generator, size: int) -> None:
        self.rules, self.detection, self.rng = rules, detection, rng
        self.count = 0

        def ints(fill: int = 0) -> Ints:
            return np.full(size, fill, np.int64)

        self.stage, self.numerics, self.kind, self.machine = ints(), ints(), ints(HONEST), np.arange(size)
        self.price, self.cost = ints(), ints()
        self.stake, self.wallet, self.locked = ints(), ints(), np.zeros((rules.fee_lock, size), np.int64)
        self.endowed = ints()
        self.status, self.group, self.genesis = ints(), ints(), np.zeros(size, np.bool_)
        self.down_until, self.jailed_until, self.released_at = ints(), ints(), ints(NEVER)
        self.probation, self.last_audit = ints(), ints()
        self.alpha, self.beta, self.false_positive = np.ones(size), np.ones(size), np.zeros(size)
        # what is told of it afterwards
        self.first_cheat, self.first_flag, self.convicted = ints(NEVER), ints(NEVER), ints(NEVER)
        self.sessions, self.cheated, self.cheated_at_flag = ints(), ints(), ints()
        self.gained, self.slashed, self.owed = ints(), ints(), ints()
        self.revenue = ints()

    def found(self) -> None:
        """The nodes of the first epoch: adversaries of every kind in every class, and the Sybils. All are past their
        probation with a good name, which is the worst case for whoever wants to find them."""
        rules = self.rules
        for cheating in (False, True):
            for cluster in range(rules.sybil_clusters):
                kind = EARLY_EXIT if cheating else HONEST
                first = self.count
                for _ in range(rules.identities):
                    row = self._add(kind, "bf16", rules.min_stake, stage=cluster % rules.stages, jitter=False)
                    self.machine[row], self.group[row] = first, Group.CHEATING_SYBIL if cheating else Group.SYBIL
                whole = rules.min_stake * rules.identities
                row = self._add(kind, "bf16", whole, stage=cluster % rules.stages, jitter=False)
                self.group[row] = Group.CHEATING_SINGLE if cheating else Group.SINGLE
        adversaries = int(rules.nodes * rules.adversaries) - int((self.kind[: self.count] != HONEST).sum())
        for i in range(rules.nodes - self.count):
            kind = i % len(KINDS) if i < adversaries else HONEST
            self._add(kind, CLASS_MIX[(i // len(KINDS) if kind != HONEST else i) % len(CLASS_MIX)], self._stake())
        rows = slice(0, self.count)
        self.genesis[rows], self.alpha[rows] = True, 20.0

    def join(self, epoch: int) -> int:
        """A newcomer, on probation; one in five cheats once it is past it. Returns its row."""
        cheats = self.rng.random() < self.rules.adversaries
        kind = int(self.rng.integers(len(KINDS))) if cheats else HONEST
        row = self._add(kind, CLASS_MIX[int(self.rng.integers(len(CLASS_MIX)))], self._stake())
        self.probation[row], self.last_audit[row] = self.rules.probation, epoch
        return row

    def worth(self) -> Ints:
        """All each node owns, locked fees and stake included."""
        owned: Ints = self.wallet + self.stake + self.locked.sum(axis=0)
        return owned

    def bound(self) -> Floats:
        """Reputation: the lower 95 % bound of Beta(α, β), by its normal approximation, in [0, 1]."""
        total = self.alpha + self.beta
        mean = self.alpha / total
        spread = np.sqrt(mean * (1 - mean) / (total + 1))
        return np.clip(mean - 1.65 * spread, 0.0, 1.0)

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

    def _add(self, kind: int, numerics: str, stake: int, *, stage: int | None = None, jitter: bool = True) -> int:
        row, rules = self.count, self.rules
        self.count += 1
        factor = PRICE_FACTOR[numerics]
        # Shifted by one every round, so that no class, of which each round has the same, ends up in one stage.
        self.stage[row] = (row + row // rules.stages) % rules.stages if stage is None else stage
        self.numerics[row], self.kind[row] = CLASSES.index(numerics), kind
        asked = rules.price * factor * (self.rng.uniform(0.9, 1.1) if jitter else 1.0)
        self.price[row], self.cost[row] = int(asked), int(rules.cost * factor)
        self.stake[row], self.wallet[row], self.endowed[row] = stake, rules.wallet, stake + rules.wallet
        self.status[row] = Status.ACTIVE
        # No two machines' kernels are equally noisy; calibration saw the middle of them.
        hardware = self.rng.uniform(0.95, 1.05)
        self.false_positive[row] = self.detection.noise[numerics].false_positive(hardware)
        return row
