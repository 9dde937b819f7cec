"""All a validator holds to judge the nodes of one span and numeric class: the reference, and what it looks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.head import load_head
from corolla_core.model.manifest import Manifest
from corolla_core.model.next_norm import next_norm
from corolla_core.model.numeric import COMPUTE_DTYPES, load_reference
from corolla_core.model.replay import replay, run
from corolla_core.model.statistics import Downstream, Measure, Recomputation
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.reordering import Reordering
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import Statistics

#: the cheaper arithmetic a node of each class may be tempted to pass off as its own, and hide in its class's noise
TEMPTATIONS = {
    NumericClass.FP16: (NumericClass.INT8, NumericClass.NF4),
    NumericClass.BF16: (NumericClass.INT8, NumericClass.NF4),
    NumericClass.INT8: (NumericClass.NF4,),
}
_EXACT = (NumericClass.FP32, NumericClass.TF32)


@dataclass(frozen=True, slots=True)
class AuditedSpan:
    """Made by `load_audited_span`."""

    span: Span
    numeric_class: NumericClass
    reference: BlockRange
    measure: Measure

    def bytes_needed(self, batch: int, length: int) -> int:
        """About what it takes to judge a session, beside the weights and what does not grow with it: the larger cache
        of keys and values, and a dozen tensors of hidden states in float32."""
        rest = self.measure.downstream.rest if self.measure.downstream is not None else None
        caches = [blocks.kv_bytes(batch, length) for blocks in (self.reference, rest) if blocks is not None]
        return max(caches) + 12 * 4 * batch * length * self.reference.hidden_size

    def replay(self, inputs_BTD: Tensor, reorderings: Sequence[Reordering] = ()) -> Tensor:
        """What an honest node of the class puts out. Raises what `replay.replay` does."""
        return replay(self.reference, inputs_BTD, reorderings, entering=COMPUTE_DTYPES[self.numeric_class])

    def statistics(
        self, inputs_BTD: Tensor, claimed_BKD: Tensor, reorderings: Sequence[Reordering] = (), *, first: int = 0
    ) -> Statistics:
        """Replay a session's opened inputs and measure the rows claimed for positions `first` on.

        Raises TensorRejected when they do not fit each other or nothing can be concluded from the inputs.
        """
        upto = inputs_BTD[:, : first + claimed_BKD.shape[1]] if claimed_BKD.ndim == 3 else inputs_BTD
        entering = upto.to(COMPUTE_DTYPES[self.numeric_class])
        replayed = self.replay(entering, reorderings)
        return self.measure.statistics(entering, replayed, claimed_BKD, reorderings, first=first)


def load_audited_span(
    checkpoint: Checkpoint,
    span: Span,
    numeric_class: NumericClass,
    *,
    wire: str,
    manifest: Manifest | None = None,
    with_kl: bool = True,
    every_block: bool = False,
) -> AuditedSpan:
    """Load the reference, the cheats the class may be tempted to (`every_block`: int8 on each single block, too), and
    for classes with noise to hide in (not float32) all that comes after the span, unless `with_kl` is False.

    Element mismatch is measured for float32 arithmetic over a narrower wire. Raises what `load_blocks` does.
    """
    reference = load_reference(checkpoint, span, numeric_class, manifest=manifest)
    cheats: dict[str, Recomputation] = {}
    for other in TEMPTATIONS.get(numeric_class, ()):
        cheaper = load_reference(checkpoint, span, other, manifest=manifest)
        cheats[other.value] = _running([cheaper])
        if every_block and other is NumericClass.INT8:
            for block in span.blocks():
                cheats[f"{other.value} block {block}"] = _running(spliced(reference, cheaper, block))
    exact = numeric_class in _EXACT
    downstream = None
    if with_kl and not exact:
        after = Span(span.end, checkpoint.num_blocks) if span.end < checkpoint.num_blocks else None
        rest = load_blocks(checkpoint, after, manifest=manifest) if after else None
        downstream = Downstream(rest, load_head(checkpoint, manifest=manifest))
    exactly = wire if exact and wire != "float32" else None
    measure = Measure(next_norm(checkpoint, span), cheats, exactly, wire, downstream)
    return AuditedSpan(span, numeric_class, reference, measure)


def spliced(honest: BlockRange, other: BlockRange, block: int) -> list[BlockRange]:
    """The parts of `honest`, in order, with `block` taken from `other`."""
    span = honest.span
    parts = [other.sub(Span(block, block + 1))]
    if block > span.start:
        parts.insert(0, honest.sub(Span(span.start, block)))
    if block + 1 < span.end:
        parts.append(honest.sub(Span(block + 1, span.end)))
    return parts


def _running(parts: list[BlockRange]) -> Recomputation:
    def recompute(hidden_BTD: Tensor, reorderings: Sequence[Reordering]) -> Tensor:
        for part in parts:
            hidden_BTD = run(part, hidden_BTD, reorderings)
        return hidden_BTD

    return recompute
