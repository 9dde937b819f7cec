"""The comparison of engines measures all of them at the same work."""

from __future__ import annotations

from pathlib import Path

import torch
from benchmarks.engines import DTYPES, WORK, measured
from model_zoo import save_checkpoint

from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.manifest import build_manifest
from corolla_core.protocol.span import Span
from corolla_node.loading import load


def test_every_engine_is_measured_at_every_work_against_float32(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    checkpoint = open_checkpoint(str(save_checkpoint("llama", tmp_path)))
    manifest = build_manifest(checkpoint)
    engines = {dtype: load(checkpoint, manifest, Span(0, 2), device="cpu", dtype=dtype) for dtype in DTYPES}
    records = {each.name: each for each in measured(engines, rounds=1, context=4)}
    assert set(records) == {f"{work}, {dtype}" for work in ("weights", *WORK) for dtype in DTYPES}
    for work in ("weights", *WORK):
        assert records[f"{work}, float32"].ratio == 1
    assert records["weights, int8"].value < 0.4 * records["weights, float32"].value
    assert all(each.value > 0 for each in records.values())
