"""From a failed audit to a dispute: quarantine on the first failure, dispute after three on fresh inputs.

The simulation knows it as `after_audit`, so that the validator's own can take its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

FAILURES = 3
RETESTS = 3
FORGET = 100


class Standing(Enum):
    TRUSTED = "trusted"
    QUARANTINED = "quarantined"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """`failures` not yet forgotten, and how many audits were `clean` since the last one."""

    standing: Standing = Standing.TRUSTED
    failures: int = 0
    clean: int = 0


def after_audit(before: Suspicion, *, failed: bool) -> Suspicion:
    """A failure quarantines, the third disputes. Three clean fresh inputs end a quarantine; its failures are only
    forgotten after a hundred, so that who behaves in quarantine does not start anew after it."""
    if before.standing is Standing.DISPUTED:
        return before
    if failed:
        failures = before.failures + 1
        return Suspicion(Standing.DISPUTED if failures >= FAILURES else Standing.QUARANTINED, failures)
    clean = before.clean + 1
    if before.standing is Standing.QUARANTINED and clean >= RETESTS:
        return Suspicion(Standing.TRUSTED, before.failures)
    if before.standing is Standing.TRUSTED and clean >= FORGET:
        return Suspicion()
    return replace(before, clean=clean)
