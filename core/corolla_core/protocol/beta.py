"""The Beta distribution's lower quantiles in plain Python, for a package that may not lean on scipy."""

from __future__ import annotations

from math import exp, lgamma, log, log1p

from corolla_core.protocol.errors import InvalidInput

#: The largest parameter accepted: the continued fraction needs about sqrt(max(a, b)) terms.
MAX_PARAMETER = 1e6
_TERMS = 10_000
_HALVINGS = 60
_TINY = 1e-300


def beta_cdf(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), within 1e-9 of the true value.

    Lentz's continued fraction, DLMF 8.17.22 (https://dlmf.nist.gov/8.17#v); on the far side of the mean it converges
    slowly, and I_x(a, b) = 1 - I_(1-x)(b, a) is used. Raises InvalidInput outside 0 < a, b <= 1e6.
    """
    _check(a, b)
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x))
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def beta_quantile(a: float, b: float, probability: float) -> float:
    """The x with I_x(a, b) = `probability`, within 1e-8: bisection, which a distribution function cannot mislead.

    Raises InvalidInput outside 0 < a, b <= 1e6 and 0 < probability < 1.
    """
    if not 0.0 < probability < 1.0:
        raise InvalidInput(f"not a probability strictly between 0 and 1: {probability!r}")
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if beta_cdf(a, b, middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _check(a: float, b: float) -> None:
    if not (0.0 < a <= MAX_PARAMETER and 0.0 < b <= MAX_PARAMETER):
        raise InvalidInput(f"not parameters of a Beta distribution: {a!r}, {b!r}")


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of DLMF 8.17.22 by the modified Lentz method."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _TERMS):
        twice = 2 * m
        for term in (
            m * (b - m) * x / ((a + twice - 1.0) * (a + twice)),
            -(a + m) * (a + b + m) * x / ((a + twice) * (a + twice + 1.0)),
        ):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-14:
            break
    return value


def _away(number: float) -> float:
    """Lentz's guard against dividing by zero."""
    return number if abs(number) > _TINY else _TINY
