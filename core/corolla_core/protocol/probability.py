"""Probabilities as exact rationals: what decides over a stake is never rounded by a float."""

from __future__ import annotations

from fractions import Fraction

from corolla_core.protocol.errors import InvalidProbability

PARTS = 1_000_000
"""The grain of a probability that is configured or solved for: one part per million."""


def probability(name: str, value: object) -> Fraction:
    """`value` as a Fraction in [0, 1]. Raises InvalidProbability if it is out of range, or a float (not exact)."""
    if type(value) is Fraction and 0 <= value.numerator <= value.denominator:
        return value
    if type(value) is not int or value not in (0, 1):
        raise InvalidProbability("a probability is an int or a Fraction in [0, 1]", name=name, value=f"{value!r:.40}")
    return Fraction(value)


def parts_up(value: Fraction) -> Fraction:
    """The smallest multiple of one part per million that is at least `value`."""
    return Fraction(-(-value.numerator * PARTS // value.denominator), PARTS)


def parts_down(value: Fraction) -> Fraction:
    """The largest multiple of one part per million that is at most `value`."""
    return Fraction(value.numerator * PARTS // value.denominator, PARTS)
