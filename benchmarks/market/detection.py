"""How often one audit sees a cheat, and how often it accuses an honest node: all the simulation is told of numerics.

Power is what `python -m benchmarks.detection` measured, taken at the lower end of what so few audits allow to say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from scipy.stats import beta

from corolla_core.protocol.probability import PARTS

MEASURED = Path(__file__).parents[1] / "detection.json"
CLASSES = ("fp32", "bf16", "int8", "nf4")
WIRE = "bfloat16"
#: Measured with a test that validators do not run (`every_block`): as deployed, nobody sees these.
UNTRIED = frozenset({("int8 on one block", "bf16")})
WINDOWS = 16
"""Windows in an audit of an average session."""
AIMED = 1e-6
"""The rate at which a calibrated limit fails an honest window, at most (docs/verification.md)."""
SHAPE = 0.1
"""ξ of the generalised-Pareto tail: heavier than exponential, as most fits of the shipped calibration are not."""
_TAIL_FROM, _TAIL_AT = 0.6, 0.01


def lower_bound(seen: int, tried: int, *, confidence: float = 0.95) -> Fraction:
    """The one-sided Clopper-Pearson lower bound of a rate of which `seen` of `tried` were seen, rounded down."""
    return Fraction(0) if seen == 0 else Fraction(int(beta.ppf(1 - confidence, seen, tried - seen + 1) * PARTS), PARTS)


@dataclass(frozen=True, slots=True)
class Detection:
    """`powers`: the least chance that one audit sees a behaviour, by (behaviour, class); what is absent makes no sense
    in that class, or was not measured."""

    powers: Mapping[tuple[str, str], Fraction]

    def power(self, behaviour: str | None, numeric_class: str) -> Fraction:
        """Raises KeyError where there is none."""
        return Fraction(1) if behaviour is None else self.powers[behaviour, numeric_class]

    def possible(self, behaviour: str | None, classes: Iterable[str]) -> list[str]:
        return [name for name in classes if behaviour is None or (behaviour, name) in self.powers]


def false_positive(hardware: float = 1.0, windows: int = WINDOWS) -> float:
    """How often an honest audit of so many windows fails, on kernels `hardware` times as noisy as those calibrated.

    One window in a million reaches the limit where the calibration is right and as tight as it may be; above 0.6 of
    the limit, where one in a hundred is, the excess is generalised Pareto.
    """
    scale = (1 - _TAIL_FROM) * SHAPE / ((_TAIL_AT / AIMED) ** SHAPE - 1)
    excess = max(0.0, 1 / hardware - _TAIL_FROM)
    window = _TAIL_AT * (1 + SHAPE * excess / scale) ** (-1 / SHAPE)
    return float(1 - (1 - window) ** windows)


def load_detection(measured: Path = MEASURED) -> Detection:
    """The rows measured over the bfloat16 wire: how often one window fails by itself. An audit judges the worst of all
    it opens, so it sees more; but windows of one session are alike, and only a few sessions were measured."""
    rows: list[Mapping[str, Any]] = json.loads(measured.read_text())["rows"]
    powers = {
        (row["behaviour"], row["numeric_class"]): lower_bound(row["windows_failed"], row["windows"])
        for row in rows
        if not row["honest"] and row["wire"] == WIRE
    }
    return Detection(powers | {each: Fraction(0) for each in UNTRIED & powers.keys()})
