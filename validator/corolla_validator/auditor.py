"""Judges transcripts: recompute the span in one prefill, measure what the node claimed, compare with the thresholds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from corolla_core.model.audited_span import AuditedSpan, load_audited_span
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.replay import open_rows
from corolla_core.protocol.errors import InvalidProof, NotCalibrated, OutOfCapacity, TensorRejected
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.transcript import Transcript
from corolla_core.protocol.verdict import Calibration, Statistics, Verdict, judge

_INFINITE = float("inf")
MOST_BYTES = 4 * 2**30

LoadSpan = Callable[[Span, NumericClass, str], AuditedSpan]


@dataclass(frozen=True, slots=True)
class Judgement:
    """`input_digest` is the same for the same inputs, whatever session they came in."""

    input_digest: Hash32
    statistics: Statistics
    verdict: Verdict


class Auditor:
    """For one model version. Blocks for as long as it computes: for a thread of its own, one call at a time."""

    def __init__(
        self,
        manifest: Manifest,
        calibration: Calibration,
        *,
        hidden_size: int,
        load: LoadSpan,
        keep: int = 4,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`keep`: how many spans stay loaded; `most_bytes`: the memory that one session may take beside them. Raises
        NotCalibrated for another model's calibration."""
        if calibration.model_root != manifest.root:
            raise NotCalibrated("these thresholds are of another model version")
        self._manifest = manifest
        self._calibration = calibration
        self._hidden_size = hidden_size
        self._load = load
        self._keep = keep
        self._most_bytes = most_bytes
        self._loaded: OrderedDict[tuple[Span, NumericClass, str], AuditedSpan] = OrderedDict()

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, manifest: Manifest, calibration: Calibration, *, most_bytes: int = MOST_BYTES
    ) -> Auditor:
        def load(span: Span, numeric_class: NumericClass, wire: str) -> AuditedSpan:
            return load_audited_span(checkpoint, span, numeric_class, wire=wire, manifest=manifest)

        return cls(manifest, calibration, hidden_size=checkpoint.hidden_size, load=load, most_bytes=most_bytes)

    @property
    def calibration_root(self) -> Hash32:
        return self._calibration.root()

    def judge(self, transcript: Transcript) -> Judgement:
        """What is to be said of the rows a node signed for, read as the dtype and the batch it signed for.

        Rows of another length, and inputs that are no numbers, fail: a node refuses such a step and signs for none.

        Raises InvalidProof when the receipts are for other weights than this model's, NotCalibrated when nothing was
        measured for this class, wire and span, OutOfCapacity when judging so many sequences takes more than
        `most_bytes`, TensorRejected when nothing can be concluded from the inputs.
        """
        if transcript.head.model_root != self._manifest.root:
            raise InvalidProof("the receipts are of another model")
        if transcript.head.weight_root != self._manifest.weight_root(transcript.span):
            raise InvalidProof("the receipts are for other weights than this model has")
        thresholds = self._calibration.find(transcript.numeric_class, transcript.wire, transcript.span)
        digest = sha256()
        for row in transcript.input_rows():
            digest.update(row)
        statistics = self._measure(transcript)
        return Judgement(Hash32(digest.digest()), statistics, judge(statistics, thresholds))

    def _measure(self, transcript: Transcript) -> Statistics:
        try:
            inputs_BTD, claimed_BTD = (
                open_rows(rows, wire=transcript.wire, hidden_size=self._hidden_size, batch=transcript.batch)
                for rows in (transcript.input_rows(), transcript.output_rows())
            )
        except TensorRejected:  # signed for all the same
            return Statistics(len(transcript.visible), _INFINITE)
        span = self._span(transcript.span, transcript.numeric_class, transcript.wire)
        needed = span.bytes_needed(*inputs_BTD.shape[:2])
        if needed > self._most_bytes:
            raise OutOfCapacity("so many sequences cannot be judged here", needed=needed, free=self._most_bytes)
        return span.statistics(inputs_BTD, claimed_BTD, transcript.reorderings)

    def _span(self, span: Span, numeric_class: NumericClass, wire: str) -> AuditedSpan:
        key = (span, numeric_class, wire)
        if key not in self._loaded:
            self._loaded[key] = self._load(span, numeric_class, wire)
            while len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]
