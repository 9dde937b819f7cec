"""From verdicts to consequences: quarantine at the first failure, dispute after three on fresh inputs.

An honest node's numeric noise is the same every time on the same input and machine, so failing the same input again
proves nothing new. A pass erases nothing, or a node could cheat and atone; passes only let failures fade, slowly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.verdict import Outcome, Verdict

FAILURES_TO_DISPUTE = 3
PASSES_TO_FORGET = 1000
"""Passes in a row, on different inputs, that let one failure fade. A node knows it failed, by the rows it was asked
for; everything is audited while the failure stands. So a liar may wait for the outcome of each lie and atone: at audit
probability p it lies in 1/p sessions for every 1000 honest ones, and never loses its stake. With 50 it did in every
sixth session at p = 1/10, now in every hundredth. Were an honest node's failures independent and 10^-5 an audit, three
would meet while the first stands once in some 10^9 audits."""


class Standing(StrEnum):
    CLEAR = "clear"
    QUARANTINED = "quarantined"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What one validator holds against one node serving one span. An immutable fold over verdicts."""

    failures: int = 0
    """Failures that have not faded."""
    failed_inputs: frozenset[Hash32] = frozenset()
    """Every input ever failed, faded ones included: none of them counts twice."""
    passed_inputs: frozenset[Hash32] = frozenset()
    """Inputs passed since the last failure or fading."""

    @property
    def standing(self) -> Standing:
        if self.failures >= FAILURES_TO_DISPUTE:
            return Standing.DISPUTED
        return Standing.QUARANTINED if self.failures else Standing.CLEAR

    def after(self, verdict: Verdict, in_root: Hash32) -> Suspicion:
        """What is held against the node after an audit of the input committed to by `in_root`.

        Undecided audits, inputs failed before, and inputs in `passed_inputs` passed again change nothing. A failure on
        an input that had passed counts. Once disputed, a jury decides: nothing here changes it any more.
        """
        if self.standing is Standing.DISPUTED or in_root in self.failed_inputs:
            return self
        if verdict.outcome is Outcome.FAILED:
            return Suspicion(self.failures + 1, self.failed_inputs | {in_root})
        if verdict.outcome is Outcome.UNDECIDED or not self.failures:
            return self
        passed = self.passed_inputs | {in_root}
        if len(passed) < PASSES_TO_FORGET:
            return replace(self, passed_inputs=passed)
        return replace(self, failures=self.failures - 1, passed_inputs=frozenset())
