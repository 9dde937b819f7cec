"""A text over a narrow wire: what it says follows from the rows as they travelled, also when a node dies, and whoever
recomputes them finds what was signed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from client_world import client_world, fast_policy, make_checkpoint, transcript_of
from node_peers import PRICE, FakeNode

from corolla.local import LocalModel
from corolla_core.model.audited_span import load_audited_span
from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.replay import open_rows
from corolla_core.model.sampling import SamplingParams
from corolla_core.model.tensors import over_wire
from corolla_core.protocol.errors import RowTooLarge
from corolla_core.protocol.opening import MAX_ROW_BYTES
from corolla_core.protocol.receipt import NumericClass, WireDtype
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio
SPANS = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
STANDBYS = {"a2": Span(0, 2), "b2": Span(2, 4), "c2": Span(4, 6)}
PROMPT = "The capital of France is"
TOKENS = 24


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


def expected(checkpoint: Checkpoint, wire: str) -> tuple[int, ...]:
    """Greedy text where what goes between the spans, and to and fro the client, is rounded as on the wire."""
    model = LocalModel(checkpoint=checkpoint, manifest=Manifest.beside(checkpoint))
    spans = [load_blocks(checkpoint, span) for span in SPANS.values()]
    caches = [blocks.new_cache(1, 100) for blocks in spans]
    ids = list(model.tokenizer(PROMPT).input_ids)
    position, new = 0, ids
    made: list[int] = []
    while len(made) < TOKENS:
        hidden = over_wire(model.embed([new], position), wire)
        position += len(new)
        for blocks, cache in zip(spans, caches, strict=True):
            hidden = over_wire(blocks.forward(hidden, cache), wire)
        new = [int(model.logits(hidden)[0].argmax())]
        made += new
    model.close()
    return tuple(made)


@pytest.mark.parametrize("wire", ["bfloat16", "float16", "int8"])
async def test_a_text_is_what_its_rows_say_and_every_node_is_paid(
    checkpoint: Checkpoint, tmp_path: Path, wire: str
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS, policy=fast_policy(wire_dtype=wire)) as world:
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS)).read()
        assert made.token_ids == expected(checkpoint, wire)
        for name in SPANS:
            assert world.charged(name) == world.paid(name) == (made.usage.prompt_tokens + TOKENS - 1) * 2 * PRICE
        assert {signed.receipt.wire for signed in world.receipts} == {WireDtype(wire)}


@pytest.mark.parametrize("victim", ["a", "b", "c"])
async def test_a_text_in_int8_survives_the_death_of_any_node_and_can_be_audited(
    checkpoint: Checkpoint, tmp_path: Path, victim: str
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS, policy=fast_policy(wire_dtype="int8")) as world:
        for name in SPANS:
            world.directory.throughput[world.nodes[name].account] = 1_000_000
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
        seen = 0
        async for _piece in stream:
            seen += 1
            if seen == 8:
                world.kill(victim)
        assert stream.generation.usage.failovers == 1
        assert stream.generation.token_ids == expected(checkpoint, "int8")
        judged = 0
        for name, node in world.nodes.items():
            await node.desk.bookkeeper.flush()
            if name != victim and node.disk.receipts:
                check(checkpoint, node)
                judged += 1
        assert judged == 3


def check(checkpoint: Checkpoint, node: FakeNode) -> None:
    """An auditor finds in the node's rows what it computes itself, to the last code but for few."""
    transcript = transcript_of(node)
    assert transcript.row_bytes == WireDtype.INT8.width(checkpoint.hidden_size)
    inputs, claimed = (
        open_rows(rows, wire=transcript.wire, hidden_size=checkpoint.hidden_size)
        for rows in (transcript.input_rows(), transcript.output_rows())
    )
    audited = load_audited_span(checkpoint, transcript.span, NumericClass.FP32, wire=transcript.wire)
    found = audited.statistics(inputs, claimed)
    assert found.mismatch is not None
    assert found.mismatch < 0.01
    assert found.w16_max < 1e-3
    cheated = audited.statistics(inputs, over_wire(claimed + 0.01 * torch.randn(claimed.shape), "int8"))
    assert cheated.mismatch is not None
    assert cheated.mismatch > 0.02


async def test_beams_in_int8_are_bounded_by_the_bytes_they_take(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, SPANS, policy=fast_policy(wire_dtype="int8")) as world:
        found, _session = await world.engine.beams(PROMPT, SamplingParams(max_tokens=6), num_beams=3)
        assert len(found) == 3
        most = MAX_ROW_BYTES // WireDtype.INT8.width(checkpoint.hidden_size)
        with pytest.raises(RowTooLarge) as refused:
            await world.engine.open_session(None, 8, most + 1)
        assert refused.value.offered > refused.value.limit == MAX_ROW_BYTES
