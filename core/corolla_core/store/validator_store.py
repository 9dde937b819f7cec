"""What a validator must not forget: what every audit found and how it votes, beside the receipts it has seen."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, Row, func, select

from corolla_core.protocol.errors import StoreError
from corolla_core.protocol.ids import Address, Hash32, SessionId
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import UnixTime
from corolla_core.protocol.verdict import Outcome, Statistics, Verdict
from corolla_core.store.receipts import ReceiptLog
from corolla_core.store.schema import audits, ballots


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One audit. `evidence` names the transcript it judged, `head` the last receipt in that; `input_digest` is
    the same for the same inputs, in whatever session; `calibration` is the root of the thresholds it was judged by."""

    evidence: Hash32
    node: Address
    session: SessionId
    head: Hash32
    span: Span
    input_digest: Hash32
    beacon: Hash32
    calibration: Hash32
    statistics: Statistics
    verdict: Verdict
    audited_at: UnixTime


@dataclass(frozen=True, slots=True)
class SealedVote:
    """A vote in one round of a dispute, as the contract numbers them, and the salt it is sealed with."""

    vote: int
    salt: Hash32


class ValidatorStore(ReceiptLog):
    """A validator's books, beside the receipts it has seen. Recording an audit twice is recording it once."""

    def record_audit(self, record: AuditRecord) -> None:
        """Keep what an audit found. Raises StoreError when the same evidence was judged otherwise before."""
        row = {
            "evidence": record.evidence,
            "node": record.node,
            "session_id": record.session,
            "head": record.head,
            "span_start": record.span.start,
            "span_end": record.span.end,
            "input_digest": record.input_digest,
            "beacon": record.beacon,
            "calibration": record.calibration,
            "outcome": record.verdict.outcome.value,
            "finding": msgspec.msgpack.encode((record.statistics, record.verdict)),
            "audited_at": record.audited_at,
        }

        def work(connection: Connection) -> None:
            here = audits.c.evidence == record.evidence
            known = connection.execute(select(audits.c.outcome).where(here)).first()
            if known is None:
                connection.execute(audits.insert().values(row))
            elif known.outcome != record.verdict.outcome.value:
                raise StoreError(f"this evidence was judged {known.outcome} before", reason="invalid")

        self._store.atomically(work)

    def audit(self, evidence: Hash32) -> AuditRecord | None:
        with self._store.transaction() as connection:
            row = connection.execute(select(audits).where(audits.c.evidence == evidence)).first()
        return None if row is None else _record(row)

    def audit_up_to(self, node: Address, head: Hash32) -> AuditRecord | None:
        """An audit of a node whose last receipt was this one."""
        query = select(audits).where(audits.c.node == node, audits.c.head == head).limit(1)
        with self._store.transaction() as connection:
            row = connection.execute(query).first()
        return None if row is None else _record(row)

    def audits(
        self, *, node: Address | None = None, outcome: Outcome | None = None, limit: int | None = None
    ) -> list[AuditRecord]:
        """Audits in the order they were made; the latest `limit` of them."""
        query = select(audits)
        if node is not None:
            query = query.where(audits.c.node == node)
        if outcome is not None:
            query = query.where(audits.c.outcome == outcome.value)
        query = query.order_by(audits.c.audited_at.desc(), audits.c.evidence.desc())
        with self._store.transaction() as connection:
            rows = connection.execute(query if limit is None else query.limit(limit)).all()
        return [_record(row) for row in reversed(rows)]

    def audit_count(self) -> int:
        with self._store.transaction() as connection:
            return int(connection.execute(select(func.count()).select_from(audits)).scalar_one())

    def seal_vote(self, dispute: int, round_: int, vote: SealedVote) -> SealedVote:
        """Keep a vote before it is committed to: without its salt it could never be revealed. The first one stays, and
        is returned."""
        here = (ballots.c.dispute == dispute) & (ballots.c.round == round_)

        def work(connection: Connection) -> SealedVote:
            known = connection.execute(select(ballots).where(here)).first()
            if known is not None:
                return SealedVote(known.vote, Hash32(bytes(known.salt)))
            row = {"dispute": dispute, "round": round_, "vote": vote.vote, "salt": vote.salt}
            connection.execute(ballots.insert().values(row))
            return vote

        return self._store.atomically(work)

    def sealed_vote(self, dispute: int, round_: int) -> SealedVote | None:
        query = select(ballots).where(ballots.c.dispute == dispute, ballots.c.round == round_)
        with self._store.transaction() as connection:
            row = connection.execute(query).first()
        return None if row is None else SealedVote(row.vote, Hash32(bytes(row.salt)))

    def audited(self, node: Address, session: SessionId) -> bool:
        """Whether any audit of this session at this node is on record."""
        query = select(audits.c.evidence).where(audits.c.node == node, audits.c.session_id == session).limit(1)
        with self._store.transaction() as connection:
            return connection.execute(query).first() is not None


def _record(row: Row[tuple[object, ...]]) -> AuditRecord:
    statistics, verdict = msgspec.msgpack.decode(row.finding, type=tuple[Statistics, Verdict])
    return AuditRecord(
        evidence=Hash32(bytes(row.evidence)),
        node=Address(row.node),
        session=SessionId(bytes(row.session_id)),
        head=Hash32(bytes(row.head)),
        span=Span(row.span_start, row.span_end),
        input_digest=Hash32(bytes(row.input_digest)),
        beacon=Hash32(bytes(row.beacon)),
        calibration=Hash32(bytes(row.calibration)),
        statistics=statistics,
        verdict=verdict,
        audited_at=UnixTime(row.audited_at),
    )
