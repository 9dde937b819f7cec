"""What the project wants to reach, by the measures' names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.record import Record


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio or the value of every record whose name matches `pattern` as a whole."""

    pattern: str
    of: Literal["ratio", "value"]
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"

    def reached(self, record: Record) -> bool:
        got = record.ratio if self.of == "ratio" else record.value
        return got is not None and (self.least is None or got >= self.least) and (self.most is None or got <= self.most)


TARGETS = (
    Target("decode, two nodes, against plain transformers", "ratio", least=0.97),
    Target("decode, two nodes, against Petals", "ratio", least=1.3),
    Target(r"overhead a hop, .*", "value", most=0.7),
    Target("payment's share of the time a token", "value", most=1),
    Target("node by clock, 16 sessions, against one", "ratio", least=5),
    Target(r"summary, 50 ms RTT: decode with speculation", "ratio", least=2),
    Target(r"unrelated words, .*: decode with speculation", "ratio", least=0.97),
    Target(r"stop of a session of .*: all but the replay", "value", most=1),
)


def target_of(record: Record, targets: Sequence[Target] = TARGETS) -> Target | None:
    return next((each for each in targets if re.fullmatch(each.pattern, record.name)), None)
