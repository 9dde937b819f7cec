"""How far honest noise reaches: a generalised-Pareto fit to what lies beyond a high quantile (peaks over threshold).

Pickands, Annals of Statistics 3(1), 1975: what exceeds a high level is nearly
generalised-Pareto, whatever the whole is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from corolla_core.protocol.errors import InvalidInput

FALSE_POSITIVES = 1e-6
"""Per window: what the fit is read off at."""
HEADROOM = 1.2
"""A threshold is at least so many times what any honest node was seen to do."""
_LEVELS = (0.95, 0.9, 0.8)
"""Quantiles to fit beyond: the highest of them that leaves enough to fit to."""
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class Tail:
    """`samples` windows, the largest `largest`; beyond `level`, `exceeding` of them with this shape and scale; `fitted`
    is the value exceeded once in 10^6. The fit is None where too few exceed, or where all are alike."""

    samples: int
    largest: float
    level: float
    exceeding: int
    shape: float | None
    scale: float | None
    fitted: float | None

    @property
    def threshold(self) -> float:
        """max(fit at 10^-6, 1.2 × largest seen)."""
        return max(self.fitted or 0.0, HEADROOM * self.largest)


def fit_tail(samples: Sequence[float]) -> Tail:
    """Raises InvalidInput unless there is a sample and all are finite."""
    from scipy.stats import genpareto

    values = np.asarray(samples, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise InvalidInput("a tail is fitted to finite numbers")
    largest = float(values.max())
    for quantile in _LEVELS:
        level = float(np.quantile(values, quantile))
        beyond = values[values > level] - level
        if beyond.size >= _FEWEST:
            break
    if beyond.size < _FEWEST or np.ptp(beyond) == 0:
        return Tail(int(values.size), largest, level, int(beyond.size), None, None, None)
    # scaled to about 1, where scipy's optimiser starts
    unit = float(beyond.mean())
    shape, _location, scale = genpareto.fit(beyond / unit, floc=0)
    rest = FALSE_POSITIVES * values.size / beyond.size
    fitted = level + unit * float(genpareto.isf(rest, shape, loc=0, scale=scale))
    return Tail(int(values.size), largest, level, int(beyond.size), float(shape), float(scale * unit), fitted)
