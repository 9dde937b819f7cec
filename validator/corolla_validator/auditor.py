"""Judges transcripts: recompute the span in one prefill, measure what the node claimed, compare with the thresholds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from torch import Tensor

from corolla_core.model.audited_span import AuditedSpan, load_audited_span
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.replay import open_rows
from corolla_core.model.tensors import WIRE_DTYPES
from corolla_core.protocol.errors import InvalidProof, NotCalibrated, TensorRejected
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.transcript import Transcript
from corolla_core.protocol.verdict import Calibration, Outcome, Statistics, Verdict, judge

_INFINITE = float("inf")

LoadSpan = Callable[[Span, NumericClass, str], AuditedSpan]


@dataclass(frozen=True, slots=True)
class Judgement:
    """`input_digest` is the same for the same inputs, whatever session they came in."""

    wire: str
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
    ) -> None:
        """`keep`: how many spans stay loaded. Raises NotCalibrated for another model's calibration."""
        if calibration.model_root != manifest.root:
            raise NotCalibrated("these thresholds are of another model version")
        self._manifest = manifest
        self._calibration = calibration
        self._hidden_size = hidden_size
        self._load = load
        self._keep = keep
        self._loaded: OrderedDict[tuple[Span, NumericClass, str], AuditedSpan] = OrderedDict()

    @classmethod
    def of(cls, checkpoint: Checkpoint, manifest: Manifest, calibration: Calibration, *, keep: int = 4) -> Auditor:
        def load(span: Span, numeric_class: NumericClass, wire: str) -> AuditedSpan:
            return load_audited_span(checkpoint, span, numeric_class, wire=wire, manifest=manifest)

        return cls(manifest, calibration, hidden_size=checkpoint.hidden_size, load=load, keep=keep)

    @property
    def calibration_root(self) -> Hash32:
        return self._calibration.root()

    def judge(self, transcript: Transcript) -> Judgement:
        """What is to be said of the rows a node signed for.

        A receipt does not say in which dtype its rows travel: each that their size allows is tried, and what speaks
        most for the node counts. Read as another dtype than it was written in, no honest row passes for another's.

        Raises InvalidProof when the receipts are for other weights than this model's, TensorRejected when the rows are
        no hidden states of one sequence (several sequences at once may be reordered, which no receipt tells) or the
        inputs are no numbers, NotCalibrated when nothing was measured for this class and span.
        """
        if transcript.head.model_root != self._manifest.root:
            raise InvalidProof("the receipts are of another model")
        if transcript.head.weight_root != self._manifest.weight_root(transcript.span):
            raise InvalidProof("the receipts are for other weights than this model has")
        wires = [
            name for name, dtype in WIRE_DTYPES.items() if transcript.row_bytes == self._hidden_size * dtype.itemsize
        ]
        if not wires:
            raise TensorRejected(f"rows of {transcript.row_bytes} bytes are not one hidden state each")
        digest = sha256()
        for row in transcript.input_rows():
            digest.update(row)
        found: list[Judgement] = []
        missing: NotCalibrated | TensorRejected | None = None
        for wire in wires:
            try:
                statistics, verdict = self._judge_as(transcript, wire)
            except (NotCalibrated, TensorRejected) as error:
                missing = error
            else:
                found.append(Judgement(wire, Hash32(digest.digest()), statistics, verdict))
        if not found:
            raise missing or NotCalibrated("nothing to judge by")
        return min(found, key=_weight)

    def _judge_as(self, transcript: Transcript, wire: str) -> tuple[Statistics, Verdict]:
        thresholds = self._calibration.find(transcript.numeric_class, wire, transcript.span)
        inputs_BTD = open_rows(transcript.input_rows(), wire=wire, hidden_size=self._hidden_size)
        claimed_BTD: Tensor | None
        try:
            claimed_BTD = open_rows(transcript.output_rows(), wire=wire, hidden_size=self._hidden_size)
        except TensorRejected:
            claimed_BTD = None
        if claimed_BTD is None:  # signed for, and no numbers
            statistics = Statistics(len(transcript.visible), _INFINITE)
        else:
            statistics = self._span(transcript.span, transcript.numeric_class, wire).statistics(inputs_BTD, claimed_BTD)
        return statistics, judge(statistics, thresholds)

    def _span(self, span: Span, numeric_class: NumericClass, wire: str) -> AuditedSpan:
        key = (span, numeric_class, wire)
        if key not in self._loaded:
            self._loaded[key] = self._load(span, numeric_class, wire)
            while len(self._loaded) > self._keep:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def _weight(judgement: Judgement) -> tuple[int, float]:
    """What speaks for the node comes first."""
    order = (Outcome.PASSED, Outcome.UNDECIDED, Outcome.FAILED)
    return order.index(judgement.verdict.outcome), judgement.statistics.w16_max
