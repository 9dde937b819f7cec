"""One audit: have the rows opened, judge them, keep the evidence and the finding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from corolla_core.protocol.errors import NotCalibrated, OutOfCapacity, TensorRejected
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.transcript import Transcript
from corolla_core.protocol.units import UnixTime
from corolla_core.store.store import Store
from corolla_core.store.validator_store import AuditRecord, ValidatorStore
from corolla_core.swarm.announcement import Announcement
from corolla_validator.auditor import Auditor
from corolla_validator.evidence_folder import EvidenceFolder
from corolla_validator.ports import Clock, Nodes

_log = structlog.get_logger(__name__)


class Examiner:
    """One audit at a time: the model runs on one thread."""

    def __init__(self, nodes: Nodes, store: Store, auditor: Auditor, evidence: EvidenceFolder, *, clock: Clock) -> None:
        self._nodes = nodes
        self._store = store
        self._books = ValidatorStore(store)
        self._auditor = auditor
        self._evidence = evidence
        self._clock = clock
        self._turn = asyncio.Lock()

    async def examine(
        self, node: Announcement, chain: Sequence[SignedReceipt], *, beacon: Hash32
    ) -> AuditRecord | None:
        """Judge the beginning of a chain of receipts, all of `chain`. None where nothing can be said of it.

        Raises what the node refuses its rows with, InvalidProof when they are not what it signed for, NetworkError,
        StoreError.
        """
        try:
            entries = [await self._nodes.open(node, signed) for signed in chain]
            async with self._turn:
                transcript = await asyncio.to_thread(Transcript, tuple(entries))
                judgement = await asyncio.to_thread(self._auditor.judge, transcript)
        except (NotCalibrated, OutOfCapacity, TensorRejected) as error:
            session = chain[0].receipt.session_id
            _log.info("a session cannot be judged", peer=node.account, session=session, why=str(error))
            return None
        async with self._turn:
            name = await asyncio.to_thread(self._evidence.keep, transcript, for_good=judgement.verdict.failed)
        record = AuditRecord(
            evidence=name,
            node=node.account,
            session=transcript.session,
            head=transcript.head.hash(),
            span=transcript.span,
            input_digest=judgement.input_digest,
            beacon=beacon,
            calibration=self._auditor.calibration_root,
            statistics=judgement.statistics,
            verdict=judgement.verdict,
            audited_at=UnixTime(int(self._clock())),
        )
        await self._store.run(self._books.record_audit, record)
        return record
