"""Detection power the tests assume, so that a new measurement moves the report and not them."""

from __future__ import annotations

from fractions import Fraction

from benchmarks.market.detection import CLASSES, Detection
from benchmarks.market.kinds import KINDS

MEANINGLESS = {("int8 per channel", "int8"), ("int8 on one block", "int8"), ("NF4", "nf4")}
MEANINGLESS |= {("int8 per channel", "nf4"), ("int8 on one block", "nf4"), ("poison (PGD)", "fp32")}
HALF = {"attention window", "stale KV"}
UNSEEN = {("1 % noise", name) for name in ("bf16", "int8", "nf4")} | {("int8 on one block", "bf16")}


def _power(behaviour: str, numeric_class: str) -> Fraction:
    if (behaviour, numeric_class) in UNSEEN:
        return Fraction(0)
    return Fraction(1, 2) if behaviour in HALF else Fraction(9, 10)


ASSUMED = Detection(
    {
        (kind.behaviour, name): _power(kind.behaviour, name)
        for kind in KINDS
        for name in CLASSES
        if kind.behaviour is not None and (kind.behaviour, name) not in MEANINGLESS
    }
)
