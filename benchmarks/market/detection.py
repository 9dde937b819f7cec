"""How often one audit sees a cheat, and how often it accuses an honest node: all the simulation is told of numerics.

`benchmarks/detection.json` (measured) is used where it exists, `benchmarks/detection_design.json` (the design's
figures) for what the measured file does not cover. Both have the form

    {"records": [{"cheat": str, "class": str, "detected": int, "trials": int}, …],
     "false_positives": [{"class": str, "flagged": int, "trials": int}, …],        one object does as well
     "honest": [{"class": str, "max": float, "threshold": float}, …]}              design file: the honest w16 tail

Unknown cheats, classes and fields are ignored, so that the measured file may hold more than is simulated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).parents[1] / "detection.json"
DESIGN = Path(__file__).parents[1] / "detection_design.json"
CLASSES = ("fp32", "tf32", "fp16", "bf16")
SHAPE = 0.1
"""ξ of the generalised-Pareto tail: heavier than exponential, as honest kernels' noise was."""
_TAIL_FROM = 0.01
_MAX_SEEN_AT = 1e-5


@dataclass(frozen=True, slots=True)
class Power:
    """`detected` of `trials` audits of a cheat flagged it; `measured` tells which file says so."""

    detected: int
    trials: int
    measured: bool

    @property
    def rate(self) -> Fraction:
        return Fraction(self.detected, self.trials)


@dataclass(frozen=True, slots=True)
class Noise:
    """An honest node's w16 in one audit: above 0.6 × `maximum` (1 % of audits) its excess is generalised Pareto, scaled
    so that `maximum`, the largest seen in calibration, is exceeded once in 1e5 audits. `flagged` overrides it all."""

    maximum: float
    threshold: float
    flagged: Fraction | None = None

    def false_positive(self, hardware: float = 1.0) -> float:
        """P(w16 × hardware > threshold); a node's kernels are `hardware` times as noisy as calibrated."""
        if self.flagged is not None:
            return float(self.flagged)
        tail = 0.6 * self.maximum
        scale = (self.maximum - tail) * SHAPE / ((_TAIL_FROM / _MAX_SEEN_AT) ** SHAPE - 1)
        excess = max(0.0, self.threshold / hardware - tail)
        return float(_TAIL_FROM * (1 + SHAPE * excess / scale) ** (-1 / SHAPE))


@dataclass(frozen=True, slots=True)
class Detection:
    powers: Mapping[tuple[str, str], Power]
    noise: Mapping[str, Noise]

    def power(self, cheat: str, numeric_class: str) -> Power:
        return self.powers[cheat, numeric_class]

    @property
    def measured(self) -> bool:
        return any(power.measured for power in self.powers.values())


def load_detection(measured: Path = MEASURED, design: Path = DESIGN) -> Detection:
    """The measured figures, and the design's for what was not measured."""
    base = json.loads(design.read_text())
    over = json.loads(measured.read_text()) if measured.exists() else {}
    powers = _powers(base, measured=False) | _powers(over, measured=True)
    flagged = {each["class"]: Fraction(each["flagged"], each["trials"]) for each in _false_positives(over)}
    # None flagged in n trials says "below about 1/n", not "never": the tail model then stands.
    noise = {
        each["class"]: Noise(each["max"], each["threshold"], flagged.get(each["class"]) or None)
        for each in base["honest"]
    }
    return Detection(powers, noise)


def _powers(document: Mapping[str, Any], *, measured: bool) -> dict[tuple[str, str], Power]:
    return {
        (each["cheat"], each["class"]): Power(each["detected"], each["trials"], measured)
        for each in document.get("records", [])
        if each["trials"] > 0
    }


def _false_positives(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = document.get("false_positives", [])
    return [found] if isinstance(found, dict) else list(found)
