"""Measure honest noise of (model, span, class, wire) here, and set thresholds from it (protocol.md section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import torch
from torch import Tensor

from corolla_core.model.audited_span import AuditedSpan, load_audited_span
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.front import load_front
from corolla_core.model.manifest import Manifest
from corolla_core.model.numeric import COMPUTE_DTYPES, load_reference, load_served
from corolla_core.model.replay import run
from corolla_core.model.statistics import Windows
from corolla_core.model.tensors import over_wire
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import PICO, Thresholds
from corolla_validator.honest import VARIANTS, Variant
from corolla_validator.tail import HEADROOM, Tail, fit_tail

LEAST_ALPHA = 0.5
"""A whole cheat has α near 1; below half of one, other kernels than those measured might reach by themselves."""
LEAST_MISMATCH = 0.02
LEAST_KL = 5e-3
"""In nats: what protocol.md's own measurements allow; poison worth the name is far above."""
MOST_KL = 0.1
"""A span whose honest noise may reach further, as far as its tail tells, is not judged by KL: it would only look as if.
A few windows in a thousand have a far larger KL than all others, early in the model above all."""
LEAST_W16 = {
    (torch.float32, "float32"): 1e-5,
    (torch.float32, "bfloat16"): 2.5e-3,
    (torch.float32, "int8"): 2.5e-3,
    (torch.float16, "float16"): 2e-3,
    (torch.float16, "float32"): 2e-3,
    (torch.bfloat16, "bfloat16"): 1.35e-2,
    (torch.bfloat16, "float32"): 1.35e-2,
}
"""By the dtype computed in and the wire: protocol.md's own limits. A short measurement on one machine has not seen the
worst that honest nodes do; it may loosen these, not tighten them."""
Report = Callable[[str, int, int], None]
"""Called with (what, passages done, passages in all)."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Honest statistics of one span, class and wire, window by window, over all variants."""

    numeric_class: NumericClass
    wire: str
    span: Span
    tokens: int
    w16: list[float] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)
    mismatch: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)

    def add(self, seen: Windows) -> None:
        self.w16.extend(seen.w16.flatten().tolist())
        for alpha in seen.alphas.values():
            self.alpha.extend(alpha.abs().flatten().tolist())
        for into, values in ((self.mismatch, seen.mismatch), (self.kl, seen.kl)):
            if values is not None:
                into.extend(values.flatten().tolist())

    def tails(self) -> dict[str, Tail]:
        """By test, for those that were measured."""
        measured = {"w16": self.w16, "alpha": self.alpha, "mismatch": self.mismatch, "kl": self.kl}
        return {test: fit_tail(samples) for test, samples in measured.items() if samples}

    def thresholds(self) -> Thresholds:
        """Raises InvalidInput where nothing was measured."""
        tails = self.tails()
        limits = {test: tail.threshold for test, tail in tails.items()}
        if "alpha" in limits:
            # not the fit: a few windows in which a cheat changes next to nothing give it a tail that means nothing
            limits["alpha"] = max(LEAST_ALPHA, HEADROOM * tails["alpha"].largest)
        if "mismatch" in limits:
            limits["mismatch"] = max(LEAST_MISMATCH, limits["mismatch"])
        limits["w16"] = max(LEAST_W16[COMPUTE_DTYPES[self.numeric_class], self.wire], limits["w16"])
        if limits.get("kl", 0.0) > MOST_KL:
            del limits["kl"]
        if "kl" in limits:
            limits["kl"] = max(LEAST_KL, limits["kl"])
        whole = {test: max(1, round(limit * PICO)) for test, limit in limits.items()}
        return Thresholds(self.numeric_class, self.wire, self.span, **whole)


def wires_of(numeric_class: NumericClass) -> tuple[tuple[str, ...], ...]:
    """The wires a class is calibrated for, those together whose figures are the same: a node that computes in bfloat16
    rounds what it is given to that, and gives what both wires carry unchanged."""
    if COMPUTE_DTYPES[numeric_class] == torch.bfloat16:
        return (("bfloat16", "float32"),)
    if COMPUTE_DTYPES[numeric_class] == torch.float16:
        return (("float16", "float32"),)
    return (("bfloat16",), ("float32",), *([("int8",)] if "int8" in numeric_class.wires else []))


def measure_noise(
    checkpoint: Checkpoint,
    manifest: Manifest,
    numeric_class: NumericClass,
    spans: Sequence[Span],
    passages: Sequence[Tensor],
    *,
    report: Report,
) -> list[Noise]:
    """Run honest nodes of the class over the passages ([1, T] each, all as long), the variants taking turns, and
    compare each with the reference. Inputs are genuine: what the reference puts out before the span, rounded as on the
    first of its wires. Raises ModelError, InvalidInput."""
    if not spans or not passages:
        raise InvalidInput("calibration needs a span and a passage")
    found = []
    front = load_front(checkpoint, manifest=manifest)
    upstream = load_reference(checkpoint, Span(0, max(span.end for span in spans)), numeric_class, manifest=manifest)
    tokens = sum(ids.shape[1] for ids in passages)
    groups = wires_of(numeric_class)
    for span in spans:
        served = load_served(checkpoint, span, numeric_class, manifest=manifest)
        served.capture()  # as nodes do
        audited = [load_audited_span(checkpoint, span, numeric_class, wire=w[0], manifest=manifest) for w in groups]
        noises = [[Noise(numeric_class, wire, span, tokens) for wire in wires] for wires in groups]
        for variant, first, ids in _shared_out(passages):
            hidden = front.embed(ids, position=0)
            if span.start:
                hidden = run(upstream.sub(Span(0, span.start)), hidden)
            inputs = over_wire(hidden, groups[0][0]).to(COMPUTE_DTYPES[numeric_class])
            outputs = variant.outputs(served, inputs)
            for wires, judge, into in zip(groups, audited, noises, strict=True):
                seen = _seen(judge, inputs, over_wire(outputs, wires[0]))
                for noise in into:
                    noise.add(seen)
            report(f"{numeric_class.value} {span}", first + ids.shape[0], len(passages))
        found += [noise for into in noises for noise in into]
    return found


def _shared_out(passages: Sequence[Tensor]) -> Iterator[tuple[Variant, int, Tensor]]:
    """The variants in turn, each with as many passages as it takes at once: (variant, index of the first, ids)."""
    turns, first = cycle(VARIANTS), 0
    while first < len(passages):
        variant = next(turns)
        yield variant, first, torch.cat(list(passages[first : first + variant.batch]))
        first += variant.batch


def _seen(audited: AuditedSpan, inputs_BTD: Tensor, claimed_BTD: Tensor) -> Windows:
    return audited.measure.windows(inputs_BTD, audited.replay(inputs_BTD), claimed_BTD)
