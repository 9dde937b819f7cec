"""What a look at one thing found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["good", "poor", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`bad` is in the way of work, `poor` soon will be, or costs speed. `advice` is empty where all is well."""

    check: str
    state: State
    found: str
    advice: str = ""


def rows(findings: Iterable[Finding]) -> list[dict[str, str | None]]:
    """As `doctor` shows them."""
    return [
        {"check": one.check, "state": one.state, "found": one.found, "advice": one.advice or None} for one in findings
    ]
