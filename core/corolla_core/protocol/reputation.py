"""What a node's audited work says of it: a Beta belief that forgets, its lower bound, and what that bound is worth.

A history counts audited events only, each by the fees the node kept of it. Belief in a success is
`Beta(prior_alpha + passed, prior_beta + failed)`; the `score` is the value that the true rate of success exceeds with
probability `1 - risk`. Source of the form: Jøsang and Ismail, "The Beta Reputation System" (2002), with exponential
forgetting; the lower bound instead of the mean makes a node without history earn its place. See docs/adr/0032.
"""

from __future__ import annotations

from dataclasses import dataclass

from corolla_core.protocol.beta import beta_quantile
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime

#: What a score of 1 is on chain: scores are uint16 in 1/65535.
SCORE_ONE = 65_535
#: More evidence than this says no more: both sides are scaled down to it.
MAX_EVIDENCE = 10_000.0


@dataclass(frozen=True, slots=True)
class ReputationTerms:
    """`half_life`: seconds after which an event counts half. `evidence_unit`: fees net of burn, in base units, that
    count as one success or failure. `stake_per_evidence`: the stake, in base units, that one unit of evidence brings
    to bear. `probation`: units of evidence under which a node is a newcomer. `newcomer_share`: the most of the
    sessions that newcomers may get.
    """

    half_life: int = 30 * 86_400
    evidence_unit: Nectar = Nectar(ONE_NECTAR // 100)  # noqa: RUF009 — an int
    stake_per_evidence: Nectar = Nectar(100 * ONE_NECTAR)  # noqa: RUF009 — an int
    prior_alpha: float = 1.0
    prior_beta: float = 1.0
    risk: float = 0.05
    probation: float = 20.0
    newcomer_share: float = 0.1

    def __post_init__(self) -> None:
        if self.half_life <= 0 or self.evidence_unit <= 0 or self.stake_per_evidence < 0 or self.probation < 0:
            raise InvalidInput("half life and evidence unit are positive, the stakes and probation not negative")
        # Priors and risks for which what a history earns over a newcomer only grows with more work of the same rate;
        # `weight` leans on that. A prior that is U-shaped with a bold bound breaks it.
        if not (1 <= self.prior_alpha <= 100 and 1 <= self.prior_beta <= 100):
            raise InvalidInput("the prior's parameters lie in [1, 100]")
        if not (0 < self.risk <= 0.2 and 0 <= self.newcomer_share <= 1):
            raise InvalidInput("risk lies in (0, 0.2], newcomer_share in [0, 1]")


@dataclass(frozen=True, slots=True)
class AuditedEvent:
    """One session of a node that a validator recomputed. `fees` were paid for it, `burned` of them burned."""

    at: UnixTime
    passed: bool
    fees: Nectar
    burned: Nectar

    def __post_init__(self) -> None:
        if not 0 <= self.burned <= self.fees:
            raise InvalidInput(f"burned {self.burned} of fees {self.fees}")

    @property
    def net(self) -> Nectar:
        """What the node kept: paying oneself to look good costs the rest."""
        return Nectar(self.fees - self.burned)


@dataclass(frozen=True, slots=True)
class History:
    """Evidence for and against a node, in units, as it counts at `at`. The empty one is a newcomer's."""

    passed: float = 0.0
    failed: float = 0.0
    at: UnixTime = UnixTime(0)  # noqa: RUF009 — an int

    def __post_init__(self) -> None:
        if not (0.0 <= self.passed < float("inf") and 0.0 <= self.failed < float("inf")):
            raise InvalidInput(f"not evidence: {self.passed!r}, {self.failed!r}")

    @property
    def evidence(self) -> float:
        return self.passed + self.failed


def aged(history: History, now: UnixTime, terms: ReputationTerms) -> History:
    """The history as it counts at `now`, not before `history.at`: with time it returns to none at all."""
    if now < history.at:
        raise InvalidInput(f"{now} is before {history.at}")
    kept = _kept(now - history.at, terms)
    return History(history.passed * kept, history.failed * kept, now)


def record(history: History, event: AuditedEvent, terms: ReputationTerms) -> History:
    """The history with one more event, which may be older than the history's time: order does not matter."""
    now = UnixTime(max(history.at, event.at))
    before = aged(history, now, terms)
    counts = event.net / terms.evidence_unit * _kept(now - event.at, terms)
    if event.passed:
        return History(before.passed + counts, before.failed, now)
    return History(before.passed, before.failed + counts, now)


def score(history: History, terms: ReputationTerms) -> float:
    """The lower confidence bound of the node's rate of success, in (0, 1), as of `history.at`."""
    scale = min(1.0, MAX_EVIDENCE / history.evidence) if history.evidence else 1.0
    return beta_quantile(
        terms.prior_alpha + history.passed * scale, terms.prior_beta + history.failed * scale, terms.risk
    )


def chain_score(history: History, terms: ReputationTerms) -> int:
    """The score as validators publish it, in 1/65535, rounded down."""
    return int(score(history, terms) * SCORE_ONE)


def capped_stake(history: History, stake: Nectar, terms: ReputationTerms) -> Nectar:
    """Stake as far as audited work backs it: `min(stake, stake_per_evidence × evidence)`.

    A cap per identity would invite a whale to split; this one splits with the work.
    """
    if stake < 0:
        raise InvalidInput(f"negative stake: {stake}")
    backed = history.evidence * terms.stake_per_evidence
    return stake if backed >= stake else Nectar(int(backed))


def weight(history: History, stake: Nectar, terms: ReputationTerms) -> float:
    """A node's standing in base units: `max(0, score - score₀) / (1 - score₀) × capped_stake`, score₀ a newcomer's.

    Only what lifts a node above a newcomer counts, so a new identity is worth nothing, and identities that share one's
    stake and work at its rate of success are together worth at most that one.
    """
    newcomer = score(History(), terms)
    earned = max(0.0, score(history, terms) - newcomer) / (1.0 - newcomer)
    return earned * capped_stake(history, stake, terms)


def on_probation(history: History, terms: ReputationTerms) -> bool:
    """Whether the node is a newcomer still, or one again because all that was known of it is old."""
    return history.evidence < terms.probation


def _kept(seconds: int, terms: ReputationTerms) -> float:
    """How much of an event is left after so long."""
    return float(2.0 ** -(seconds / terms.half_life))
