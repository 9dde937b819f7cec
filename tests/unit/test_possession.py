"""A node shows that it holds its weights by what only who reads them now can say, and asking does not wear it out."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fake_blocks import FakeWeights
from hypothesis import given
from hypothesis import strategies as st
from model_zoo import Zoo
from node_peers import MODEL, FakeClient, World, running_node, signer, until
from range_server import RangeServer, range_server
from transformers import AutoModelForCausalLM, LlamaConfig

from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.chunks import Chunks
from corolla_core.model.manifest import CHUNK_BYTES
from corolla_core.protocol.errors import (
    InvalidInput,
    MalformedMessage,
    NotServed,
    PossessionUnavailable,
    WeightsMissing,
)
from corolla_core.protocol.ids import Address, Hash32, address_bytes
from corolla_core.protocol.merkle import leaf_hash, merkle_root
from corolla_core.protocol.possession import MOST_CHUNKS, TRIES, Doubt, Held, Pace, judge_digests, possession_digest
from corolla_core.protocol.span import Span
from corolla_core.swarm.frame import decode, encode
from corolla_core.swarm.messages import AskPossession, Possession
from corolla_node import possession

ME, OTHER = Address("0x" + "11" * 20), Address("0x" + "22" * 20)
SALT = Hash32(b"s" * 32)
SPAN = Span(0, 2)
MIB = 2**20


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


def test_a_digest_is_bound_to_the_salt_and_to_who_answers() -> None:
    chunk = b"weights"
    digest = possession_digest(ME, SALT, chunk)
    assert digest == sha256(b"corolla/possession/v1" + address_bytes(ME) + SALT + chunk).digest()
    others = {possession_digest(OTHER, SALT, chunk), possession_digest(ME, Hash32(bytes(32)), chunk)}
    assert digest not in others
    assert len(others) == 2


@given(st.integers(1, 2**40), st.integers(1, 2**40), st.floats(0, 100))
def test_a_link_slower_than_the_slowest_link_is_always_late(rate: int, nbytes: int, slack: float) -> None:
    pace = Pace(rate, slack)
    slowest = pace.slowest_link(nbytes)
    assert slowest <= rate * (1 + 1e-9)
    assert nbytes / (0.999 * slowest) > pace.deadline(nbytes)
    assert nbytes / (1.001 * slowest) < pace.deadline(nbytes)


def test_a_pace_that_is_none_is_refused() -> None:
    for rate, slack in ((0, 1.0), (-1, 1.0), (1, -1.0)):
        with pytest.raises(InvalidInput):
            Pace(rate, slack)


@given(st.lists(st.sampled_from(Held), max_size=12))
def test_doubt_needs_failures_in_a_row_and_one_right_answer_ends_it(outcomes: list[Held]) -> None:
    doubt = Doubt()
    for outcome in outcomes:
        doubt = doubt.after(outcome)
    row = next((at for at, outcome in enumerate(reversed(outcomes)) if outcome is Held.HELD), len(outcomes))
    assert doubt.doubted == (row >= TRIES)
    assert not doubt.after(Held.HELD).doubted


def test_an_answer_of_another_length_shows_nothing() -> None:
    expected = [Hash32(bytes([n]) * 32) for n in range(3)]
    assert judge_digests(expected, list(expected)) == 0
    assert judge_digests(expected, [expected[0], bytes(32), expected[2]]) == 1
    assert judge_digests(expected, [expected[1], expected[0], expected[2]]) == 2
    for wrong in ([], expected[:2], [*expected, expected[0]]):
        assert judge_digests(expected, list(wrong)) == 3


# Where the bytes come from


def test_chunks_are_the_ones_the_manifest_hashes(zoo: Zoo) -> None:
    checkpoint = zoo.checkpoint("llama")
    chunks = Chunks(checkpoint, Span(1, 3))
    names = [n for n in checkpoint.tensor_names if n.startswith("model.layers.2.")]
    tensors = checkpoint.read(names)
    stored = [bytes(tensors[name].view(-1).view(dtype=tensors[name].dtype).numpy().tobytes()) for name in sorted(names)]
    assert [bytes(chunks.read((2, index))) for index in range(chunks.count(2))] == stored
    assert [chunks.size((2, index)) for index in range(chunks.count(2))] == [len(one) for one in stored]
    with pytest.raises(NotServed):
        chunks.size((0, 0))
    for index in (-1, chunks.count(2)):
        with pytest.raises(InvalidInput):
            chunks.size((2, index))


def test_a_large_tensor_is_cut_as_its_leaf_is(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=16, hidden_size=256, intermediate_size=1100, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=4, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    chunks = Chunks(checkpoint, Span(0, 1))
    name = "model.layers.0.mlp.down_proj.weight"
    stored = checkpoint.read([name])[name].numpy().tobytes()
    assert len(stored) == 1100 * 1024 > CHUNK_BYTES
    sizes = [chunks.size((0, index)) for index in range(chunks.count(0))]
    at = sizes.index(len(stored) - CHUNK_BYTES) - 1
    pieces = [bytes(chunks.read((0, index))) for index in (at, at + 1)]
    assert b"".join(pieces) == stored
    assert merkle_root(leaf_hash(piece) for piece in pieces) == merkle_root(
        leaf_hash(stored[start : start + CHUNK_BYTES]) for start in (0, CHUNK_BYTES)
    )
    assert sum(sizes) == sum(checkpoint.entry(n).nbytes for n in checkpoint.tensor_names if "layers" in n)


@pytest.fixture
def server(zoo: Zoo) -> Any:
    with range_server(zoo.folder("llama")) as running:
        yield running


def test_a_node_that_downloaded_its_part_answers_from_its_disk(zoo: Zoo, server: RangeServer, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(server.url, cache_dir=tmp_path)
    load_blocks(checkpoint, Span(1, 3))
    chunks, here = Chunks(checkpoint, Span(1, 3)), Chunks(zoo.checkpoint("llama"), Span(1, 3))
    server.sent.clear()
    asked = [(block, index) for block in (1, 2) for index in range(chunks.count(block))]
    assert chunks.digests(ME, SALT, asked) == here.digests(ME, SALT, asked)
    assert not sum(server.sent.values())
    for path in tmp_path.rglob("ranges/*"):
        path.unlink()
    assert chunks.digests(ME, SALT, asked) == here.digests(ME, SALT, asked)
    assert sum(server.sent.values()) >= sum(chunks.size(one) for one in asked)  # and where it lost it, from afar


def test_a_checkpoint_that_went_away_is_a_typed_error(zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    shutil.copytree(zoo.folder("llama"), folder)
    chunks = Chunks(open_checkpoint(str(folder)), Span(0, 1))
    shutil.rmtree(folder)
    with pytest.raises(WeightsMissing):
        chunks.read((0, 0))


# What a node does when asked


def waits(go: threading.Event) -> None:
    assert go.wait(5)


def question(*chunks: tuple[int, int], model: bytes = MODEL, salt: bytes = SALT) -> AskPossession:
    return AskPossession(model, salt, list(chunks))


@pytest.mark.anyio
async def test_a_node_answers_in_the_order_asked_and_for_itself() -> None:
    world = World()
    async with running_node(world, "a", SPAN) as node:
        asker = FakeClient(world, [node], name="validator")
        asker.pipes[0].send(question((1, 3), (0, 0), (1, 3)))
        answer, _ = await asker.expect(Possession)
        expected = FakeWeights(SPAN).digests(node.account, SALT, [(1, 3), (0, 0), (1, 3)])
        assert (answer.salt, answer.digests) == (SALT, expected)
        assert judge_digests(expected, answer.digests) == 0
        assert judge_digests(FakeWeights(SPAN).digests(OTHER, SALT, [(1, 3), (0, 0), (1, 3)]), answer.digests) == 3


@pytest.mark.anyio
async def test_what_it_does_not_hold_is_refused_with_a_typed_error() -> None:
    world = World()
    async with running_node(world, "a", SPAN) as node:
        asker = FakeClient(world, [node], name="validator")
        for asked, kind in (
            (question((0, 0), model=bytes(32)), NotServed),
            (question((0, 0), (2, 0)), NotServed),
            (question((0, 0), (0, 4)), InvalidInput),
            (question((2**32 - 1, 2**32 - 1)), NotServed),
        ):
            asker.pipes[0].send(asked)
            error, fault = await asker.expect_fault()
            assert type(error) is kind
            assert fault.session is None


def test_a_longer_question_than_allowed_does_not_parse() -> None:
    fits = b"".join(encode(question(*[(0, 0)] * MOST_CHUNKS)))
    decode(memoryview(fits))
    for asked in (question(*[(0, 0)] * (MOST_CHUNKS + 1)), question()):
        with pytest.raises(MalformedMessage):
            decode(memoryview(b"".join(encode(asked))))


@pytest.mark.anyio
async def test_reading_holds_up_neither_the_loop_nor_other_peers_and_one_asker_waits_for_its_answer() -> None:
    world, weights, go = World(), FakeWeights(SPAN), threading.Event()
    weights.before_reading = partial(waits, go)
    async with running_node(world, "a", SPAN, weights=weights) as node:
        asker, other = (FakeClient(world, [node], name=name) for name in ("validator", "client"))
        asker.pipes[0].send(question((0, 0)))
        await other.open()  # the node goes on while the disk is read
        asker.pipes[0].send(question((0, 1)))
        error, _ = await asker.expect_fault()
        assert isinstance(error, PossessionUnavailable)
        assert error.reason == "busy"
        go.set()
        assert (await asker.expect(Possession))[0].digests == FakeWeights(SPAN).digests(node.account, SALT, [(0, 0)])
        asker.pipes[0].send(question((0, 1)))
        await asker.expect(Possession)


@pytest.mark.anyio
async def test_what_one_asker_can_have_read_is_bounded_and_others_still_get_theirs() -> None:
    world = World()
    async with running_node(world, "a", SPAN, weights=FakeWeights(SPAN, nbytes=MIB)) as node:
        greedy, modest = (FakeClient(world, [node], name=name) for name in ("greedy", "modest"))
        most = question(*[(0, 0)] * MOST_CHUNKS)
        for _ in range(possession.BURST // (MOST_CHUNKS * MIB)):
            greedy.pipes[0].send(most)
            await greedy.expect(Possession)
        greedy.pipes[0].send(most)
        error, _ = await greedy.expect_fault()
        assert isinstance(error, PossessionUnavailable)
        assert error.reason == "busy"
        modest.pipes[0].send(most)
        await modest.expect(Possession)


@pytest.mark.anyio
async def test_too_many_askers_are_turned_away_while_others_wait_for_their_turn() -> None:
    world, weights, go = World(), FakeWeights(SPAN), threading.Event()
    weights.before_reading = partial(waits, go)
    async with running_node(world, "a", SPAN, weights=weights) as node:
        askers = [FakeClient(world, [node], name=f"v{n}") for n in range(possession.MOST_WAITING + 1)]
        for asker in askers:
            asker.pipes[0].send(question((0, 0)))
        error, _ = await askers[-1].expect_fault()
        assert isinstance(error, PossessionUnavailable)
        go.set()
        for asker in askers[:-1]:
            await asker.expect(Possession)


@pytest.mark.anyio
async def test_a_lost_checkpoint_is_said_to_be_lost_and_the_node_serves_on() -> None:
    world, weights = World(), FakeWeights(SPAN)
    weights.failing = WeightsMissing("/secret/path is gone", names=["x"])
    async with running_node(world, "a", SPAN, weights=weights) as node:
        asker = FakeClient(world, [node], name="validator")
        asker.pipes[0].send(question((0, 0)))
        error, _ = await asker.expect_fault()
        assert isinstance(error, PossessionUnavailable)
        assert error.reason == "lost"
        assert "/secret" not in str(error)
        await asker.open()


@pytest.mark.anyio
async def test_an_asker_that_hangs_up_leaves_nothing_behind() -> None:
    world, weights, go = World(), FakeWeights(SPAN), threading.Event()
    weights.before_reading = partial(waits, go)
    async with running_node(world, "a", SPAN, weights=weights) as node:
        asker = FakeClient(world, [node], name="validator")
        asker.pipes[0].send(question((0, 0)))
        await until(lambda: bool(node.server._possessions._asking))
        asker.pipes[0].cut()
        go.set()
        await until(lambda: not node.server._possessions._asking)
    assert signer("a").address == node.account
