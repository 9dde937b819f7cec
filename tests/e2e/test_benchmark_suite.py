"""The suite's swarms, with a model so small that only their plumbing takes time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from benchmarks.effort import Effort
from benchmarks.hops import hops
from benchmarks.kills import kills
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaConfig

from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.manifest import MANIFEST_FILE, build_manifest

BRIEF = Effort(rounds=1, sessions=(1,), contexts=(60,), hops=(2,), latencies=(10,))


@pytest.fixture(scope="module")
def tiny(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blocks with random weights under SmolLM2's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in checkpoint.glob("tokenizer*"):
        shutil.copy(file, folder)
    manifest = build_manifest(open_checkpoint(str(folder)), name="tiny")
    (folder / MANIFEST_FILE).write_text(manifest.to_json())
    return folder


@pytest.fixture(autouse=True)
def logging() -> None:
    """As `python -m benchmarks` sets it up: times of repairs are read from what the client logs."""
    setup_logging("error")


@pytest.mark.anyio
async def test_three_kills_in_a_sentence_are_timed_and_change_no_token(tiny: Path) -> None:
    whole, besides, noticing, opening, replay, redo = await kills(tiny, BRIEF, Console(stderr=True))
    assert "p50 of 3 kills" in whole.name
    assert 0 < besides.value < whole.value < 20
    assert min(opening.value, replay.value, redo.value) > 0
    assert noticing.value >= 0


@pytest.mark.anyio
async def test_a_chain_takes_turns_with_plain_transformers(tiny: Path) -> None:
    speed, overhead = await hops(tiny, BRIEF, Console(stderr=True))
    assert speed.ratio is not None
    assert 0 < speed.ratio < 1
    assert overhead.value > 0
