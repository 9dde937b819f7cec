"""`python -m benchmarks.detection`: how often each cheat is caught, and an honest node accused, at shipped thresholds.

Real text that no threshold was measured with, SmolLM2-135M, one span. An audit is one session of 128 positions; a
window is 16 of them. Writes `benchmarks/detection.json`; `--show` only prints what that holds. The same command again
goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table
from tests import cheats
from tests.cheats import Stage
from torch import Tensor

from benchmarks.record import machine
from corolla_core.config import setup_logging
from corolla_core.model.audited_span import AuditedSpan, load_audited_span
from corolla_core.model.block_range import load_blocks
from corolla_core.model.calibrated import shipped_calibration
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.front import load_front
from corolla_core.model.manifest import Manifest
from corolla_core.model.numeric import COMPUTE_DTYPES, load_served
from corolla_core.model.replay import run
from corolla_core.model.smollm import prepare_smollm
from corolla_core.model.statistics import Measure, Recomputation, Windows
from corolla_core.model.tensors import wire_dtype
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import PICO, WINDOW, Statistics, Thresholds, judge
from corolla_validator.honest import VARIANTS
from corolla_validator.texts import passages

RESULTS = Path(__file__).with_name("detection.json")
HONEST = "honest, in all variants"
LENGTH = 128
SETTINGS = (
    (NumericClass.FP32, "float32"),
    (NumericClass.FP32, "bfloat16"),
    (NumericClass.BF16, "bfloat16"),
    (NumericClass.INT8, "bfloat16"),
    (NumericClass.NF4, "bfloat16"),
)
#: cheats that mean something to a class beside those that every class is tried with
ONLY = {
    "bf16 arithmetic": (NumericClass.FP32,),
    "int8 per channel": (NumericClass.FP32, NumericClass.BF16),
    "int8 on one block": (NumericClass.FP32, NumericClass.BF16),
    "NF4": (NumericClass.FP32, NumericClass.BF16, NumericClass.INT8),
    "NF4 on one block": (NumericClass.FP32, NumericClass.BF16, NumericClass.INT8),
    "poison (PGD)": (NumericClass.BF16, NumericClass.INT8, NumericClass.NF4),
}
#: KL costs two passes through all that follows; it is measured where other tests may not see enough
WITH_KL = ("poison (PGD)", "1 % noise", "int8 KV")


@dataclass(frozen=True, slots=True)
class Row:
    """One way to compute, in one class: how many audits and windows failed, by which tests, and what was measured."""

    numeric_class: str
    wire: str
    span: str
    behaviour: str
    honest: bool
    audits: int
    audits_failed: int
    windows: int
    windows_failed: int
    by_test: dict[str, int]
    w16: tuple[float, float]
    """The least and the largest of the windows."""
    alpha_max: float | None
    mismatch_min: float | None
    kl_max: float | None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.numeric_class, self.wire, self.behaviour


class Bench:
    """One class and wire on one span: the inputs, what an honest node gives for them, and what is compared with it."""

    def __init__(
        self, checkpoint: Checkpoint, numeric_class: NumericClass, wire: str, span: Span, texts: Sequence[Tensor]
    ) -> None:
        manifest = Manifest.beside(checkpoint)
        self.limits = shipped_calibration(manifest.root).calibration.find(numeric_class, wire, span)
        self.wire = wire_dtype(wire)
        every_block = numeric_class is NumericClass.BF16
        audited = load_audited_span(checkpoint, span, numeric_class, wire=wire, every_block=every_block)
        honest = load_served(checkpoint, span, numeric_class)
        self.stage = Stage(checkpoint, span, numeric_class, honest, audited, self.limits.w16 / PICO)
        before = load_blocks(checkpoint, Span(0, span.start)) if span.start else None
        front = load_front(checkpoint)
        self.sessions = [self._session(audited, front.embed(ids, position=0), before) for ids in texts]

    def _session(self, audited: AuditedSpan, hidden: Tensor, before: object) -> tuple[Tensor, Tensor, Measure]:
        if before is not None:
            hidden = run(before, hidden)  # type: ignore[arg-type]
        inputs = hidden.to(self.wire).to(COMPUTE_DTYPES[audited.numeric_class])
        known = {name: cheat(inputs, ()) for name, cheat in audited.measure.cheats.items()}
        measure = replace(audited.measure, cheats={name: _always(output) for name, output in known.items()})
        return inputs, audited.replay(inputs), measure

    def try_out(self, name: str, behave: Callable[[Stage, Tensor], Tensor]) -> Row:
        with_kl = name in WITH_KL
        each = range(len(self.sessions))
        return self.row(name, False, [self.windows(behave, session, with_kl=with_kl) for session in each])

    def windows(self, behave: Callable[[Stage, Tensor], Tensor], session: int, *, with_kl: bool) -> Windows:
        inputs, replayed, measure = self.sessions[session]
        if not with_kl:
            measure = replace(measure, downstream=None)
        return measure.windows(inputs, replayed, behave(self.stage, inputs).to(self.wire))

    def row(self, name: str, honest: bool, seen: Sequence[Windows]) -> Row:
        audits = [judge(each.worst(), self.limits) for each in seen]
        single = [statistics for each in seen for statistics in one_by_one(each)]
        alphas = [alpha for each in single for _name, alpha in each.alphas]
        w16 = [each.w16_max for each in single]
        return Row(
            self.limits.numeric_class.value,
            self.limits.wire,
            str(self.limits.span),
            name,
            honest,
            len(audits),
            sum(verdict.failed for verdict in audits),
            len(single),
            sum(judge(each, self.limits).failed for each in single),
            by_test(single, self.limits),
            (min(w16), max(w16)),
            max(alphas, default=None),
            min((each.mismatch for each in single if each.mismatch is not None), default=None),
            max((each.kl for each in single if each.kl is not None), default=None),
        )


def one_by_one(seen: Windows) -> list[Statistics]:
    """Each window as if it were all that was opened."""
    each = range(seen.w16.shape[1])
    return [
        Statistics(
            WINDOW,
            float(seen.w16[0, at]),
            tuple((name, float(alpha[0, at])) for name, alpha in seen.alphas.items()),
            None if seen.mismatch is None else float(seen.mismatch[0, at]),
            None if seen.kl is None else float(seen.kl[0, at]),
        )
        for at in each
    ]


def by_test(single: Sequence[Statistics], limits: Thresholds) -> dict[str, int]:
    """How many windows each test fails by itself."""
    found: dict[str, int] = {}
    for statistics in single:
        for test in {reason.test.split()[0] for reason in judge(statistics, limits).reasons}:
            found[test] = found.get(test, 0) + 1
    return dict(sorted(found.items()))


def upper_bound(failed: int, tried: int, *, confidence: float = 0.95) -> float:
    """The one-sided Clopper-Pearson upper bound of a rate of which `failed` of `tried` were seen."""
    from scipy.stats import beta

    return 1.0 if failed >= tried else float(beta.ppf(confidence, failed + 1, tried - failed))


def tried_in(name: str, numeric_class: NumericClass) -> bool:
    return numeric_class in ONLY.get(name, tuple(NumericClass))


def measure_all(
    span: Span, sessions: int, out: Console, classes: Sequence[str], done: Collection[tuple[str, str, str]]
) -> Iterator[Row]:
    checkpoint = open_checkpoint(str(prepare_smollm()))
    texts = passages(checkpoint.tokenizer(), length=LENGTH, part=1)[:sessions]
    for numeric_class, wire in SETTINGS:
        if classes and numeric_class.value not in classes:
            continue
        bench, began = Bench(checkpoint, numeric_class, wire, span, texts), perf_counter()
        if (numeric_class.value, wire, HONEST) not in done:
            turns = [VARIANTS[index % len(VARIANTS)] for index in range(len(bench.sessions))]
            seen = [
                bench.windows(lambda stage, inputs, v=variant: v.outputs(stage.honest, inputs), index, with_kl=True)  # type: ignore[misc]
                for index, variant in enumerate(turns)
            ]
            yield bench.row(HONEST, True, seen)
        for name, cheat in {**cheats.CHEATS, "bf16 arithmetic": cheats.bf16}.items():
            if tried_in(name, numeric_class) and (numeric_class.value, wire, name) not in done:
                yield bench.try_out(name, cheat)
        out.print(f"{numeric_class.value} over {wire}: {perf_counter() - began:.0f} s", style="dim")


def show(rows: Sequence[Row], out: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "class",
        "wire",
        "behaviour",
        "windows failed",
        "audits failed",
        "by",
        "w16",
        "α",
        "mismatch",
        "kl",
    ):
        table.add_column(heading)
    for row in rows:
        table.add_row(*cells(row))
    out.print(table)
    for row in rows:
        if row.honest:
            bound = upper_bound(row.windows_failed, row.windows)
            out.print(
                f"{row.numeric_class} over {row.wire}: {row.windows_failed} of {row.windows} honest windows failed; "
                f"false positives below {bound:.2%} a window (Clopper-Pearson, 95 %)"
            )


def cells(row: Row) -> list[str]:
    """A row as the table and `docs/verification.md` show it."""
    tests = " ".join(f"{test} {count / row.windows:.0%}" for test, count in row.by_test.items())
    other = ["-" if value is None else f"{value:.2g}" for value in (row.alpha_max, row.mismatch_min, row.kl_max)]
    return [
        row.numeric_class,
        row.wire,
        row.behaviour,
        f"{row.windows_failed}/{row.windows}",
        f"{row.audits_failed}/{row.audits}",
        tests or "-",
        f"{row.w16[0]:.2g}-{row.w16[1]:.2g}",
        *other,
    ]


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| class | wire | behaviour | windows | audits | failed by | w16 | α max | mismatch min | KL max |"]
    lines += ["|" + "---|" * 10, *("| " + " | ".join(cells(row)) + " |" for row in rows)]
    return "\n".join(lines)


def _always(output: Tensor) -> Recomputation:
    return lambda _inputs, _reorderings: output


def _read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [Row(**{**raw, "w16": tuple(raw["w16"])}) for raw in json.loads(path.read_text())["rows"]]


def _measured() -> dict[str, dict[str, str]]:
    """By which command and where each class was measured."""
    return dict(json.loads(RESULTS.read_text())["measured"]) if RESULTS.exists() else {}


def _save(rows: Sequence[Row], command: str) -> None:
    """Write these rows beside those of other classes, and of these as far as the same command measured them: a long run
    that is stopped leaves what it had measured."""
    by_class, new = _measured(), {row.key for row in rows}
    stale = {row.numeric_class for row in rows if by_class.get(row.numeric_class, {}).get("command") != command}
    kept = [row for row in _read(RESULTS) if row.numeric_class not in stale and row.key not in new]
    order = list(dict.fromkeys(numeric_class.value for numeric_class, _wire in SETTINGS))
    every = sorted([*kept, *rows], key=lambda row: order.index(row.numeric_class))
    by_class |= {row.numeric_class: {"command": command, "machine": machine()} for row in rows}
    body = {"measured": by_class, "rows": [asdict(row) for row in every]}
    RESULTS.write_text(json.dumps(body, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--span", default="10:20")
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--class", dest="classes", action="append", default=[], help="only these; keeps others' rows")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    if not args.show:
        command = "python -m " + " ".join(["benchmarks.detection", *sys.argv[1:]])
        rows: list[Row] = []
        same = {name for name, how in _measured().items() if how["command"] == command}
        done = {row.key for row in _read(RESULTS) if row.numeric_class in same}
        for row in measure_all(Span.parse(args.span), args.sessions, Console(stderr=True), args.classes, done):
            rows.append(row)
            _save(rows, command)
    if args.markdown:
        sys.stdout.write(markdown(_read(RESULTS)) + "\n")
    else:
        show(_read(RESULTS), Console())


if __name__ == "__main__":
    main()
