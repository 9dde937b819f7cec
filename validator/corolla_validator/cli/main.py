"""`validator`: audit what nodes sign for, and measure the honest noise they are judged by."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from corolla_core.config import setup_logging
from corolla_core.config.terminal import errors
from corolla_core.model.calibrated import Calibrated
from corolla_core.protocol.errors import ConfigError, InvalidInput
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import PICO, Thresholds
from corolla_validator.cli import audits, explorer
from corolla_validator.cli.terminal import emit, progress_lines

app = typer.Typer(
    name="validator",
    help="Audit what nodes sign for, and measure what honest work looks like.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
audits.add_to(app)
app.command(name="explorer")(explorer.explore)


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="A directory, hf:org/name, a URL, or smollm2-135m-instruct.")],
    classes: Annotated[
        list[NumericClass] | None, typer.Option("--class", help="A numeric class; may be given again. [default: fp32]")
    ] = None,
    spans: Annotated[
        list[str] | None, typer.Option("--span", help="start:end; may be given again. [default: thirds, and the whole]")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of text for each class, span and wire.")] = 8192,
    length: Annotated[int, typer.Option(min=17, help="Tokens a passage.")] = 128,
    out: Annotated[Path | None, typer.Option(help="Write or extend this file. [default: only show]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run honest nodes of a class in every way they may differ, and set thresholds above all that was seen."""
    with errors():
        setup_logging("error")
        import torch

        from corolla_core.model.checkpoint import open_checkpoint
        from corolla_core.model.manifest import Manifest
        from corolla_core.model.smollm import NAME, prepare_smollm
        from corolla_validator.calibrate import measure_noise
        from corolla_validator.evidence import calibrated
        from corolla_validator.texts import passages

        torch.set_num_threads(1)
        checkpoint = open_checkpoint(str(prepare_smollm()) if model == NAME else model)
        manifest = Manifest.beside(checkpoint)
        chosen = [Span.parse(text) for text in spans or ()] or default_spans(checkpoint.num_blocks)
        before = _existing(out)
        texts = passages(checkpoint.tokenizer(), length=length, part=0)
        count = -(-tokens // length)
        if count > len(texts):
            raise ConfigError(f"the text has {len(texts) * length} tokens for this, not {tokens}")
        began = perf_counter()
        noises = []
        with progress_lines() as report:
            for numeric_class in classes or [NumericClass.FP32]:
                noises += measure_noise(checkpoint, manifest, numeric_class, chosen, texts[:count], report=report)
        found = calibrated(manifest, noises, length=length, seconds=perf_counter() - began)
        if before is not None:
            found = before.merged(found)
        if out is not None:
            out.write_text(found.to_json())
        shown = {"model_root": found.calibration.model_root.hex(), "calibration_root": found.calibration.root().hex()}
        emit(shown, [row(entry) for entry in found.calibration.entries], as_json=as_json)


def row(entry: Thresholds) -> dict[str, str | float | None]:
    """An entry as people read it."""
    limits = {"w16": entry.w16, "alpha": entry.alpha, "mismatch": entry.mismatch, "kl": entry.kl}
    shown = {test: None if limit is None else limit / PICO for test, limit in limits.items()}
    return {"class": entry.numeric_class.value, "wire": entry.wire, "span": str(entry.span), **shown}


def default_spans(num_blocks: int) -> list[Span]:
    """Three thirds, and the whole."""
    edges = sorted({0, num_blocks // 3, 2 * num_blocks // 3, num_blocks})
    thirds = [Span(a, b) for a, b in pairwise(edges)]
    return [*thirds, Span(0, num_blocks)] if len(thirds) > 1 else thirds


def _existing(out: Path | None) -> Calibrated | None:
    """What the file holds already. Raises ConfigError when it is something else: it is not overwritten."""
    if out is None or not out.exists():
        return None
    try:
        return Calibrated.from_json(out.read_bytes())
    except InvalidInput as error:
        raise ConfigError(f"{out} is no calibration ({error}); name another file") from None
