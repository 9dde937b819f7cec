"""What was served and is to be audited, and what was counted along the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from benchmarks.market.population import Bools, Floats, Ints


@dataclass(frozen=True, slots=True)
class Work:
    """Served hops, one an element: which node, whether it cheated, whether it was a probe, its fee's weight."""

    node: Ints
    cheated: Bools
    probe: Bools
    weight: Floats
    since: Ints

    def where(self, mask: Bools) -> Work:
        return Work(self.node[mask], self.cheated[mask], self.probe[mask], self.weight[mask], self.since[mask])

    def __add__(self, other: Work) -> Work:
        pairs = zip(self._columns(), other._columns(), strict=True)
        return Work(*(np.concatenate(pair) for pair in pairs))

    def _columns(self) -> tuple[Ints, Bools, Bools, Floats, Ints]:
        return self.node, self.cheated, self.probe, self.weight, self.since


def nothing() -> Work:
    no = np.zeros(0, np.int64)
    return Work(no, np.zeros(0, np.bool_), np.zeros(0, np.bool_), np.zeros(0), no)


@dataclass(slots=True)
class Tally:
    """What was counted along the way. `traffic` has a row an epoch: the share of hops served by cheats that audits can
    see, and by those they cannot."""

    traffic: list[tuple[float, float]] = field(default_factory=list)
    audits: int = 0
    honest_audits: int = 0
    honest_flagged: int = 0
    honest_slashed: int = 0
    disputes: int = 0
    false_disputes: int = 0
    draws: int = 0
    overturned: int = 0
