"""The demo's model: three thirds of real weights write what plain transformers writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.ends import load_ends
from corolla_core.model.front import Front
from corolla_core.model.head import Head
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.model.sampling import Sampler, SamplingParams, StopWatcher
from corolla_core.model.smollm import NAME, prepare_smollm
from corolla_core.protocol.span import Span

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.set_num_threads(1)
    return open_checkpoint(str(prepare_smollm()))


@pytest.fixture(scope="module")
def manifest(checkpoint: Checkpoint) -> Manifest:
    return Manifest.beside(checkpoint)


@pytest.fixture(scope="module")
def thirds(checkpoint: Checkpoint, manifest: Manifest) -> list[BlockRange]:
    return [load_blocks(checkpoint, Span(a, a + 10), manifest=manifest) for a in (0, 10, 20)]


@pytest.fixture(scope="module")
def ends(checkpoint: Checkpoint, manifest: Manifest) -> tuple[Front, Head]:
    return load_ends(checkpoint, manifest=manifest)


def test_the_checkpoint_is_what_was_promised(checkpoint: Checkpoint, manifest: Manifest) -> None:
    assert (checkpoint.num_blocks, checkpoint.hidden_size, checkpoint.max_positions) == (30, 576, 8192)
    assert len(set((checkpoint.weight_files or {}).values())) > 3
    assert manifest.name == NAME
    assert set(checkpoint.eos_token_ids) == {0, 2}
    assert build_manifest(checkpoint, name=NAME).root == manifest.root


def test_preparing_again_changes_nothing(checkpoint: Checkpoint) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in checkpoint.folder.iterdir()}
    assert prepare_smollm() == checkpoint.folder
    assert {path.name: path.stat().st_mtime_ns for path in checkpoint.folder.iterdir()} == before


def test_three_thirds_answer_as_plain_transformers_does(
    checkpoint: Checkpoint, thirds: list[BlockRange], ends: tuple[Front, Head]
) -> None:
    front, head = ends
    tokenizer = checkpoint.tokenizer()
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    whole: Any = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    expected = whole.generate(prompt, max_new_tokens=24, do_sample=False, attention_mask=torch.ones_like(prompt))[
        0, prompt.shape[1] :
    ].tolist()
    caches = [part.new_cache(1, prompt.shape[1] + 24) for part in thirds]
    sampler, watcher = Sampler(SamplingParams(max_tokens=24), prompt[0].tolist()), StopWatcher(tokenizer)
    written: list[int] = []
    text, step = "", prompt
    while len(written) < 24 and (not written or written[-1] not in checkpoint.eos_token_ids):
        hidden = front.embed(step, position=caches[0].length)
        for part, cache in zip(thirds, caches, strict=True):
            hidden = part.forward(hidden, cache)
        written.append(sampler.pick(head.logits(hidden[:, -1:])[0, 0]))
        text += watcher.push(written[-1])
        step = torch.tensor([written[-1:]])
    assert written == expected
    assert text + watcher.flush() == "The capital of France is Paris."
