"""When cheating costs more than it brings: the inequalities of protocol.md section 4, exact, and solved.

With audit probability p, detection power q, jury capture ε, a cheated unit of work (whatever p is drawn over: a chunk,
a session) is punished with probability

    π = p · q · (1 − ε)

and the attacker, who saves g on it and is paid the bribe v for it, who loses the slashable stake S but for the share a
that comes back to it as its own challenger, and the locked fees F, is deterred with margin m when

    (1 − a) · S + F  ≥  m · (g + v) · (1 − π) / π.

An honest node is safe when its expected loss to a false positive (rate φ) is a tenth of its profit at most:

    p · φ · S  ≤  profit / 10.

A validator computes rather than nods when faults planted at rate e make nodding a loss:

    e · (reward + S_v)  >  cost.

Money is ints of base units, probabilities are Fractions (`probability.py`). What is solved for is rounded against the
attacker: a stake up to a whole base unit, a probability up to a part per million.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from corolla_core.protocol.errors import InvalidInput, Undeterrable
from corolla_core.protocol.probability import PARTS, parts_down, parts_up, probability
from corolla_core.protocol.units import Nectar

MARGIN = 3
"""The margin m the protocol asks for, at least."""
HONEST_LOSS = Fraction(1, 10)
"""The largest share of an honest node's profit that false positives may cost it."""
_NOTHING = Nectar(0)


@dataclass(frozen=True, slots=True)
class Odds:
    """`audit` p, `power` q and `capture` ε. Raises InvalidProbability for any outside [0, 1] or a float."""

    audit: Fraction
    power: Fraction
    capture: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        for name in ("audit", "power", "capture"):
            object.__setattr__(self, name, probability(name, getattr(self, name)))

    @property
    def punished(self) -> Fraction:
        """π = p · q · (1 − ε)."""
        return self.audit * self.power * (1 - self.capture)


@dataclass(frozen=True, slots=True)
class Temptation:
    """What one cheated unit of work brings: the compute `saved` (g) and a `bribe` (v), in base units."""

    saved: Nectar
    bribe: Nectar = _NOTHING

    def __post_init__(self) -> None:
        _amount("saved", self.saved)
        _amount("bribe", self.bribe)

    @property
    def total(self) -> int:
        return self.saved + self.bribe


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a convicted node loses: slashable `stake` (S) and `locked` fees (F), in base units, less `own_share` (a),
    the share of the stake that is paid back to it if it was its own challenger."""

    stake: Nectar
    locked: Nectar = _NOTHING
    own_share: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        _amount("stake", self.stake)
        _amount("locked", self.locked)
        object.__setattr__(self, "own_share", probability("own_share", self.own_share))

    @property
    def loss(self) -> Fraction:
        """(1 − a) · S + F."""
        return (1 - self.own_share) * self.stake + self.locked


def deters(odds: Odds, temptation: Temptation, exposure: Exposure, *, margin: int = MARGIN) -> bool:
    """Whether `(1 − a)·S + F ≥ m·(g + v)·(1 − π)/π`. With π = 0 only a cheat that brings nothing is deterred."""
    return odds.punished * exposure.loss >= _margin(margin) * temptation.total * (1 - odds.punished)


def stake_needed(
    odds: Odds,
    temptation: Temptation,
    *,
    locked: Nectar = _NOTHING,
    own_share: Fraction = Fraction(0),
    margin: int = MARGIN,
) -> Nectar:
    """The smallest S that deters. Raises Undeterrable if none does: π = 0, or a whole stake paid back."""
    kept = 1 - probability("own_share", own_share)
    _amount("locked", locked)
    if deters(odds, temptation, Exposure(Nectar(0), locked, own_share), margin=margin):
        return Nectar(0)
    if odds.punished == 0 or kept == 0:
        raise Undeterrable("no stake deters what is never punished", name="stake")
    lacking = _margin(margin) * temptation.total * (1 - odds.punished) / odds.punished - locked
    return Nectar(_up(lacking / kept))


def audit_needed(
    power: Fraction,
    temptation: Temptation,
    exposure: Exposure,
    *,
    capture: Fraction = Fraction(0),
    margin: int = MARGIN,
) -> Fraction:
    """The smallest audit probability p, in parts per million, that deters.

    The inequality solved for π is `π ≥ m·(g + v) / (loss + m·(g + v))`. Raises Undeterrable if even p = 1 does not do.
    """
    seen = probability("power", power) * (1 - probability("capture", capture))
    gain = _margin(margin) * temptation.total
    if gain == 0:
        return Fraction(0)
    if not deters(Odds(Fraction(1), power, capture), temptation, exposure, margin=margin):
        raise Undeterrable("not even auditing everything deters", name="audit")
    return parts_up(Fraction(gain) / (exposure.loss + gain) / seen)


def honest_safe(audit: Fraction, false_positive: Fraction, stake: Nectar, profit: Nectar) -> bool:
    """Whether `p·φ·S ≤ profit / 10`, profit being an honest node's on one unit of work."""
    _amount("stake", stake)
    _amount("profit", profit)
    return _accused(audit, false_positive) * stake <= HONEST_LOSS * profit


def stake_allowed(audit: Fraction, false_positive: Fraction, profit: Nectar) -> Nectar | None:
    """The largest S at which honest nodes are safe; None where no stake is too much (p·φ = 0)."""
    _amount("profit", profit)
    accused = _accused(audit, false_positive)
    return None if accused == 0 else Nectar(int(HONEST_LOSS * profit // accused))


def false_positive_allowed(audit: Fraction, stake: Nectar, profit: Nectar) -> Fraction:
    """The largest false-positive rate φ, in parts per million, at which honest nodes are safe."""
    _amount("stake", stake)
    _amount("profit", profit)
    at_risk = probability("audit", audit) * stake
    return Fraction(1) if at_risk <= HONEST_LOSS * profit else parts_down(HONEST_LOSS * profit / at_risk)


def diligence_pays(planted: Fraction, *, reward: Nectar, stake: Nectar, cost: Nectar) -> bool:
    """Whether `e·(reward + S_v) > cost`: a validator that nods loses more on planted faults than it saves.

    `stake` is what a missed planted fault costs the validator, `cost` what computing one audit costs it.
    """
    for name, amount in (("reward", reward), ("stake", stake), ("cost", cost)):
        _amount(name, amount)
    return probability("planted", planted) * (reward + stake) > cost


def planted_needed(*, reward: Nectar, stake: Nectar, cost: Nectar) -> Fraction:
    """The smallest planted-fault rate e, in parts per million, that makes diligence pay; Undeterrable if none."""
    if not diligence_pays(Fraction(1), reward=reward, stake=stake, cost=cost):
        raise Undeterrable("an audit costs more than missing a fault does", name="planted")
    least = parts_up(Fraction(cost, reward + stake))
    if diligence_pays(least, reward=reward, stake=stake, cost=cost):
        return least
    return least + Fraction(1, PARTS)


def _accused(audit: Fraction, false_positive: Fraction) -> Fraction:
    return probability("audit", audit) * probability("false_positive", false_positive)


def _amount(name: str, value: object) -> None:
    if type(value) is not int or value < 0:
        raise InvalidInput(f"{name} is a whole number of base units, not {value!r:.40}")


def _margin(margin: int) -> int:
    if type(margin) is not int or margin < 1:
        raise InvalidInput(f"a margin is a whole number from 1, not {margin!r:.40}")
    return margin


def _up(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
