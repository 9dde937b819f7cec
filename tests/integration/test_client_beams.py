"""Beam search over the swarm finds what transformers finds, also when a node dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from client_world import client_world, make_checkpoint, transcript_of
from node_peers import PRICE, FakeNode
from transformers import AutoModelForCausalLM

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.replay import open_rows, replay
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import InvalidInput, RowTooLarge
from corolla_core.protocol.opening import MAX_ROW_BYTES
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio
SPANS = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
STANDBYS = {"a2": Span(0, 2), "b2": Span(2, 4), "c2": Span(4, 6)}
PROMPT = "The capital of France is"
TOKENS = 12


def expected(checkpoint: Checkpoint, beams: int, eos: int | None) -> list[tuple[int, ...]]:
    """What transformers' own beam search gives."""
    prompt = torch.tensor([list(checkpoint.tokenizer()(PROMPT).input_ids)])
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    with torch.inference_mode():
        texts = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=TOKENS,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            pad_token_id=300,
        )
    found = [text[prompt.shape[1] :].tolist() for text in texts]
    return [tuple(t for t in text if t not in (300, eos)) for text in found]


@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize("eos", [None, 118])
async def test_beams_are_those_of_transformers(tmp_path: Path, beams: int, eos: int | None) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    checkpoint = make_checkpoint(folder, eos=eos)
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        found, session = await world.engine.beams(PROMPT, SamplingParams(max_tokens=TOKENS), num_beams=beams)
        assert [beam.token_ids for beam in found] == expected(checkpoint, beams, eos)
        assert [beam.score for beam in found] == sorted((beam.score for beam in found), reverse=True)
        for name, used in zip(SPANS, session.usage(), strict=True):
            assert used.tokens == beams * session.position
            assert world.charged(name) == world.paid(name) == used.tokens * 2 * PRICE


@pytest.mark.parametrize("victim", ["a", "b", "c"])
async def test_beams_survive_the_death_of_any_node(tmp_path: Path, victim: str) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    checkpoint = make_checkpoint(folder)
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        for name in SPANS:
            world.directory.throughput[world.nodes[name].account] = 1_000_000
        blocks, forward, calls = world.nodes[victim].blocks, world.nodes[victim].blocks.forward_many, 0
        loop = asyncio.get_running_loop()

        def dies_at_the_sixth_step(steps: Sequence[tuple[torch.Tensor, Any]]) -> list[torch.Tensor | Exception]:
            nonlocal calls
            calls += 1
            if calls == 6:
                loop.call_soon_threadsafe(world.kill, victim)
            return forward(steps)

        blocks.forward_many = dies_at_the_sixth_step
        found, session = await world.engine.beams(PROMPT, SamplingParams(max_tokens=TOKENS), num_beams=3)
        assert calls >= 6
        assert session.failovers == 1
        assert [beam.token_ids for beam in found] == expected(checkpoint, 3, None)
        for node in (node for name, node in world.nodes.items() if name != victim):
            await node.desk.bookkeeper.flush()
            if node.disk.receipts:
                recomputes(node, session.position)


def recomputes(node: FakeNode, length: int) -> None:
    """What the node signed can be computed again from what it shows, whether it was there from the beginning or not."""
    transcript = transcript_of(node)
    assert len(transcript.visible) == length
    assert transcript.reorderings
    inputs, claimed = (
        open_rows(rows, wire=transcript.wire, hidden_size=node.blocks.hidden_size, batch=transcript.batch)
        for rows in (transcript.input_rows(), transcript.output_rows())
    )
    again = replay(node.blocks, inputs, transcript.reorderings, entering=torch.float32)
    torch.testing.assert_close(again, claimed, rtol=1e-4, atol=1e-5)


async def test_what_does_not_go_with_beams_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    async with client_world(make_checkpoint(folder), tmp_path, SPANS) as world:
        for params, beams in (
            (SamplingParams(max_tokens=5, temperature=0.5), 3),
            (SamplingParams(max_tokens=5, stop=("x",)), 3),
            (SamplingParams(max_tokens=5), 1),
        ):
            with pytest.raises(InvalidInput):
                await world.engine.beams(PROMPT, params, num_beams=beams)
        assert world.opener.opened == []


async def test_more_beams_than_could_be_opened_on_chain_are_refused_before_a_node_is_asked(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    checkpoint = make_checkpoint(folder)
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        most = MAX_ROW_BYTES // (4 * checkpoint.hidden_size)
        with pytest.raises(RowTooLarge) as refused:
            await world.engine.open_session(None, 8, most + 1)
        assert refused.value.offered > refused.value.limit == MAX_ROW_BYTES
        assert world.opener.opened == []
