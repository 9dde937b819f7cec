"""From audits to scores: what a validator's books say of each node, and which of it is published. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from eth_utils.crypto import keccak

from corolla_core.chain.reputation import MAX_NODES
from corolla_core.protocol.eip712 import word
from corolla_core.protocol.ids import Address, address_bytes
from corolla_core.protocol.reputation import (
    AuditedEvent,
    History,
    ReputationTerms,
    aged,
    chain_score,
    on_probation,
    record,
)
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.verdict import Outcome
from corolla_core.store.fee_store import SessionAt, SessionFees
from corolla_core.store.validator_store import AuditRecord

_NOTHING = SessionFees(Nectar(0), Nectar(0))


@dataclass(frozen=True, slots=True)
class Rated:
    """What is held of a node now. `sessions`: how many were audited and decided. `score`: in 1/65535."""

    node: Address
    history: History
    sessions: int
    score: int
    probation: bool


def rate(
    audits: Iterable[AuditRecord], fees: Mapping[SessionAt, SessionFees], *, now: UnixTime, terms: ReputationTerms
) -> dict[Address, Rated]:
    """Every node that was audited, by what its audited sessions say as of `now`.

    A session counts once, as failed if any audit of it failed, and an undecided audit says nothing. It counts by what
    the node kept of its fees; a failure counts as one unit of evidence at least, or a liar would be paid for its honest
    sessions only and leave nothing against itself.
    """
    sessions: dict[SessionAt, AuditRecord] = {}
    for audit in audits:
        if audit.verdict.outcome is not Outcome.UNDECIDED:
            key = audit.node, audit.session
            before = sessions.get(key)
            if before is None or audit.verdict.failed or not before.verdict.failed:
                sessions[key] = audit
    histories: dict[Address, History] = {}
    counts: dict[Address, int] = {}
    for (node, session), audit in sessions.items():
        event = _event(audit, fees.get((node, session), _NOTHING), terms)
        histories[node] = record(histories.get(node, History()), event, terms)
        counts[node] = counts.get(node, 0) + 1
    return {node: _rated(node, history, counts[node], now, terms) for node, history in histories.items()}


def publishable(rated: Mapping[Address, Rated], *, epoch: int, validator: Address) -> dict[Address, int]:
    """The scores a validator publishes: of nodes off probation, never its own.

    Of more than a sheet holds, those that the epoch's number picks: the same at every validator, so that ratings meet.
    """
    found = [one for one in rated.values() if not one.probation and one.node != validator]
    found.sort(key=lambda one: keccak(word(epoch) + address_bytes(one.node)))
    return {one.node: one.score for one in found[:MAX_NODES]}


def _event(audit: AuditRecord, fees: SessionFees, terms: ReputationTerms) -> AuditedEvent:
    if audit.verdict.failed and fees.amount - fees.burned < terms.evidence_unit:
        return AuditedEvent(audit.audited_at, passed=False, fees=terms.evidence_unit, burned=Nectar(0))
    return AuditedEvent(audit.audited_at, not audit.verdict.failed, fees.amount, fees.burned)


def _rated(node: Address, history: History, sessions: int, now: UnixTime, terms: ReputationTerms) -> Rated:
    current = aged(history, UnixTime(max(now, history.at)), terms)
    return Rated(node, current, sessions, chain_score(current, terms), on_probation(current, terms))
