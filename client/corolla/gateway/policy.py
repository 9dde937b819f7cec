"""Where a request may run, in order: decided here from what is known of each backend, tried by `fallback`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from corolla_core.protocol.units import Nectar

#: What was observed of a backend counts for so many seconds: one found slow is tried again after that.
REMEMBERED = 60.0
_NEWEST_COUNTS = 0.3


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a backend is used under. None is no limit.

    `private`: a prompt sent there stays among nodes that its owner trusts. `most_cost`: of one text, in base units.
    `most_wait`: seconds to the first token, as observed lately.
    """

    private: bool = False
    most_cost: Nectar | None = None
    most_wait: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Seconds to the first token, the newest counting most, and when that was seen."""

    wait: float
    at: float

    def then(self, wait: float, at: float) -> Observed:
        if at - self.at > REMEMBERED:
            return Observed(wait, at)
        return replace(self, wait=self.wait + _NEWEST_COUNTS * (wait - self.wait), at=at)


T = TypeVar("T")


def open_to(backends: Sequence[tuple[Conditions, T]], *, private: bool) -> list[tuple[Conditions, T]]:
    """Those that a request may be sent to at all: a private one to private swarms and to nothing else, ever."""
    return [(conditions, each) for conditions, each in backends if conditions.private or not private]


def unfit(
    conditions: Conditions, *, models: Sequence[str], model: str, cost: Nectar, observed: Observed | None, now: float
) -> str | None:
    """Why a backend is passed by for a text that can cost up to `cost` there; None where it is not."""
    if model not in models:
        return "does not have the model"
    if conditions.most_cost is not None and cost > conditions.most_cost:
        return "may cost more than is allowed there"
    if conditions.most_wait is not None and observed is not None:
        lately = now - observed.at <= REMEMBERED
        if lately and observed.wait > conditions.most_wait:
            return "was slower lately than is allowed"
    return None
