"""What audits add up to: who gets a score, by how much each session counts, and whom a validator publishes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corolla_core.chain.reputation import MAX_NODES
from corolla_core.protocol.ids import Address, Hash32, SessionId, address
from corolla_core.protocol.reputation import SCORE_ONE, History, ReputationTerms, score
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime
from corolla_core.protocol.verdict import Outcome, Statistics, Verdict
from corolla_core.store.fee_store import SessionAt, SessionFees
from corolla_core.store.validator_store import AuditRecord
from corolla_validator.config import ValidatorSettings
from corolla_validator.scores import Rated, publishable, rate

TERMS = ReputationTerms(evidence_unit=Nectar(100))
NOW = UnixTime(1_800_000_000)
NODE, OTHER, ME = (address(bytes([n]) * 20) for n in (1, 2, 3))
PASSED, FAILED, UNDECIDED = Outcome.PASSED, Outcome.FAILED, Outcome.UNDECIDED


def audit(session: int, outcome: Outcome = PASSED, *, node: Address = NODE, at: int = NOW) -> AuditRecord:
    name = Hash32(bytes([session, len(outcome.value)]) * 16)
    return AuditRecord(
        evidence=name,
        node=node,
        session=SessionId(bytes([session]) * 16),
        head=name,
        span=Span(0, 2),
        input_digest=name,
        beacon=name,
        calibration=name,
        statistics=Statistics(16, 0.0),
        verdict=Verdict(outcome),
        audited_at=UnixTime(at),
    )


def paid(*amounts: int, node: Address = NODE, burned: int = 0) -> dict[SessionAt, SessionFees]:
    """Fees of the sessions 1, 2, …"""
    return {
        (node, SessionId(bytes([number]) * 16)): SessionFees(Nectar(amount), Nectar(burned))
        for number, amount in enumerate(amounts, start=1)
    }


def one(audits: list[AuditRecord], fees: dict[SessionAt, SessionFees], *, now: int = NOW) -> Rated:
    (found,) = rate(audits, fees, now=UnixTime(now), terms=TERMS).values()
    return found


def test_a_session_counts_by_what_the_node_kept_of_its_fees() -> None:
    found = one([audit(1), audit(2)], paid(300, 150, burned=50))
    assert (found.history.passed, found.history.failed, found.sessions) == (3.5, 0.0, 2)
    assert found.score == int(score(found.history, TERMS) * SCORE_ONE)


def test_work_nobody_paid_for_earns_nothing() -> None:
    found = one([audit(1)], {})
    assert found.history.evidence == 0
    assert found.probation


def test_a_failure_counts_even_when_it_was_never_redeemed() -> None:
    assert one([audit(1, FAILED)], {}).history.failed == 1.0
    assert one([audit(1, FAILED)], paid(900)).history.failed == 9.0


def test_an_undecided_audit_says_nothing() -> None:
    assert rate([audit(1, UNDECIDED)], paid(500), now=NOW, terms=TERMS) == {}


def test_a_session_audited_again_counts_once_and_as_failed_if_it_ever_failed() -> None:
    again = replace(audit(1), audited_at=UnixTime(NOW - 5))
    assert one([again, audit(1)], paid(200)).history.passed == 2.0
    for audits in ([audit(1, FAILED), audit(1)], [audit(1), audit(1, FAILED)]):
        assert one(audits, paid(200)).history == History(0.0, 2.0, NOW)


def test_what_was_found_a_half_life_ago_counts_half() -> None:
    found = one([audit(1, at=NOW - TERMS.half_life)], paid(400))
    assert abs(found.history.passed - 2.0) < 1e-9


def test_a_clock_set_back_ages_nothing() -> None:
    assert one([audit(1)], paid(400), now=NOW - 1_000).history.passed == 4.0


def test_a_node_on_probation_is_never_published() -> None:
    audits = [audit(1), audit(1, node=OTHER)]
    fees = paid(int(TERMS.probation) * 100) | paid(int(TERMS.probation) * 100 - 1, node=OTHER)
    rated = rate(audits, fees, now=NOW, terms=TERMS)
    assert {node: found.probation for node, found in rated.items()} == {NODE: False, OTHER: True}
    assert publishable(rated, epoch=1, validator=ME) == {NODE: rated[NODE].score}


def test_a_node_that_a_month_passed_by_is_on_probation_again() -> None:
    fees = paid(int(TERMS.probation) * 150)
    assert not one([audit(1)], fees).probation
    assert one([audit(1)], fees, now=NOW + TERMS.half_life).probation


def test_a_validator_says_nothing_of_itself() -> None:
    rated = {node: Rated(node, History(), 1, 5, False) for node in (NODE, ME)}
    assert publishable(rated, epoch=1, validator=ME) == {NODE: 5}


def test_of_too_many_nodes_every_validator_picks_the_same_and_others_next_time() -> None:
    nodes = [address(n.to_bytes(20, "big")) for n in range(1, MAX_NODES + 30)]
    mine = {node: Rated(node, History(), 1, 7, False) for node in nodes}
    theirs = {node: Rated(node, History(), 1, 9, False) for node in reversed(nodes)}
    first = publishable(mine, epoch=1, validator=ME)
    assert len(first) == MAX_NODES
    assert set(first) == set(publishable(theirs, epoch=1, validator=OTHER))
    assert set(first) != set(publishable(mine, epoch=2, validator=ME))


def test_settings_say_what_a_success_costs_and_what_a_voice_does() -> None:
    chosen = ValidatorSettings(evidence_unit="0.5", voice_stake="0")
    assert (chosen.terms.evidence_unit, chosen.voice_amount) == (ONE_NECTAR // 2, 0)
    for wrong in ("0", "-1", "much"):
        with pytest.raises(ValueError):
            ValidatorSettings(evidence_unit=wrong)


def test_failures_lower_a_score_and_fees_of_the_defaults_are_a_hundredth_of_a_token() -> None:
    assert ReputationTerms().evidence_unit * 100 == ONE_NECTAR
    good = one([audit(1)], paid(3_000))
    caught = one([audit(1), audit(2, FAILED)], paid(3_000, 3_000))
    assert good.score > 0.9 * SCORE_ONE
    assert caught.score < 0.45 * SCORE_ONE
