"""First and last blocks kept on the client's machine: the same text; nodes see and are paid for the middle alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from client_world import BLOCKS, ClientWorld, client_world, fast_policy, greedy_ids, make_checkpoint
from node_peers import PRICE
from test_client_beams import expected
from test_client_speculation import Eager, Half
from transformers import AutoModelForCausalLM

from corolla.generation import Tape, TextStream
from corolla.local import remote_span
from corolla.many import generate_many
from corolla.speculation import Speculator
from corolla.values import Generation
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import UnsupportedModel
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import Step

pytestmark = pytest.mark.anyio
SPANS = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
STANDBYS = {"a2": Span(0, 2), "b2": Span(2, 4), "c2": Span(4, 6)}
PROMPT = "one two three one two three one two"
LONG = "The quick brown fox jumps over the lazy dog. " * 7
KEPT = [(1, 0), (0, 1), (2, 1), (3, 2)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


def ids_of(world: ClientWorld, text: str) -> list[int]:
    return list(world.model.tokenizer(text).input_ids)


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)


def check_same(plain: Any, prompt: list[int], made: Generation, tokens: int) -> None:
    """The text is the greedy one of plain transformers, and each token as likely as there: a tiny model says the same
    token whatever little is wrong."""
    assert len(made.token_ids) == tokens
    with torch.inference_mode():
        logits_TV = plain(torch.tensor([[*prompt, *made.token_ids]])).logits[0, len(prompt) - 1 : -1]
    chances, likeliest = torch.log_softmax(logits_TV, dim=-1).max(dim=-1)
    assert made.token_ids == tuple(likeliest.tolist())
    torch.testing.assert_close(torch.tensor(made.logprobs), chances, rtol=0, atol=2e-6)


def world_of(checkpoint: Checkpoint, folder: Path, kept: tuple[int, int], nodes: Any = None, **policy: Any) -> Any:
    return client_world(checkpoint, folder, nodes or SPANS, policy=fast_policy(local_blocks=kept, **policy))


@pytest.mark.parametrize("kept", KEPT)
async def test_the_text_is_the_same_and_the_middle_alone_is_paid(
    checkpoint: Checkpoint, plain: Any, tmp_path: Path, kept: tuple[int, int]
) -> None:
    async with world_of(checkpoint, tmp_path, kept) as world:
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=24), logprobs=True).read()
        check_same(plain, ids_of(world, PROMPT), made, 24)
        remote = Span(kept[0], BLOCKS - kept[1])
        assert (made.route[0].span.start, made.route[-1].span.end) == (remote.start, remote.end)
        assert made.usage.cost == (len(PROMPT) + 23) * len(remote) * PRICE
        assert sum(world.charged(name) for name in SPANS) == sum(world.paid(name) for name in SPANS) == made.usage.cost
        assert {s.receipt.span for s in world.receipts} == {hop.span for hop in made.route}


async def test_nodes_that_serve_kept_blocks_alone_are_in_no_route(
    checkpoint: Checkpoint, plain: Any, tmp_path: Path
) -> None:
    async with world_of(checkpoint, tmp_path, (2, 2), {"b": Span(2, 4)}) as world:
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=8), logprobs=True).read()
        check_same(plain, ids_of(world, PROMPT), made, 8)


@pytest.mark.parametrize("kept", [(1, 0), (2, 1)])
async def test_a_prompt_cut_into_steps_gives_the_same_text(
    checkpoint: Checkpoint, plain: Any, tmp_path: Path, kept: tuple[int, int]
) -> None:
    async with world_of(checkpoint, tmp_path, kept, prefill_tokens=64) as world:
        made = await world.engine.stream(LONG, SamplingParams(max_tokens=9), logprobs=True).read()
        check_same(plain, ids_of(world, LONG), made, 9)


@pytest.mark.parametrize(("victim", "prompt"), [("a", PROMPT), ("b", LONG), ("c", PROMPT)])
async def test_the_text_survives_the_death_of_any_node(
    checkpoint: Checkpoint, plain: Any, tmp_path: Path, victim: str, prompt: str
) -> None:
    async with world_of(checkpoint, tmp_path, (1, 1), SPANS | STANDBYS) as world:
        for name in SPANS:
            world.directory.throughput[world.nodes[name].account] = 1_000_000
        stream = world.engine.stream(prompt, SamplingParams(max_tokens=24), logprobs=True)
        count = 0
        async for piece in stream:
            count += len(piece.token_ids)
            if count == 7:
                world.kill(victim)
        check_same(plain, ids_of(world, prompt), stream.generation, 24)
        assert stream.generation.usage.failovers == 1


async def test_a_replaced_node_is_sent_to_the_bit_what_the_first_was(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Blocks compute a prompt in other roundings than token by token: the history is kept, not computed again."""
    async with world_of(checkpoint, tmp_path, (2, 0), {"b": Span(2, 6), "b2": Span(2, 6)}) as world:
        world.directory.throughput[world.nodes["b"].account] = 1_000_000
        seen: dict[str, dict[int, bytes]] = {"b": {}, "b2": {}}

        def watch(name: str) -> None:
            server = world.nodes[name].server
            honest = server.on_message

            def on_message(conn: Any, message: Any, payload: memoryview) -> None:
                if isinstance(message, Step):
                    tokens = message.tensor.shape[1]
                    width = payload.nbytes // tokens
                    for row in range(tokens):
                        part = bytes(payload[row * width : (row + 1) * width])
                        seen[name].setdefault(message.pos + row, part)
                honest(conn, message, payload)

            server.on_message = on_message  # type: ignore[method-assign]

        for name in seen:
            watch(name)
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=12), logprobs=True)
        count = 0
        async for piece in stream:
            count += len(piece.token_ids)
            if count == 6:
                world.kill("b")
        common = seen["b"].keys() & seen["b2"].keys()
        assert len(common) >= len(PROMPT) + 5
        assert all(seen["b"][position] == seen["b2"][position] for position in common)


@pytest.mark.parametrize("kept", [(2, 0), (0, 2), (1, 1)])
async def test_guesses_are_rolled_back_here_as_they_are_there(
    checkpoint: Checkpoint, plain: Any, tmp_path: Path, kept: tuple[int, int]
) -> None:
    async with world_of(checkpoint, tmp_path, kept) as world:
        text = greedy_ids(checkpoint, ids_of(world, PROMPT), 40)

        async def make(*_: Any) -> Speculator:
            return Speculator(Half(text), Eager(waste=100))

        stream = TextStream(
            world.model,
            PROMPT,
            SamplingParams(max_tokens=40),
            tape=Tape(world.model),
            open_session=world.engine._open_for,
            close_session=world.engine._close_after,
            make_speculator=make,
            logprobs=True,
        )
        made = await stream.read()
        check_same(plain, ids_of(world, PROMPT), made, 40)
        assert 0 < made.usage.accepted < made.usage.drafted


async def test_a_conversation_reuses_what_both_sides_hold(checkpoint: Checkpoint, plain: Any, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=8)
    async with world_of(checkpoint, tmp_path, (1, 1)) as world, world.engine.chat(capacity=64) as chat:
        await chat.send("Hello", params)
        async with chat.stream("Tell me more", params) as stream:
            async for _piece in stream:
                break  # the next token is on its way: what it gives is never seen
        for text in ("And again?", "And once more, at length, so that the session is outgrown?"):
            turn = chat.stream(text, params, logprobs=True)
            async for _piece in turn:
                pass
            made = turn.generation
            prompt = world.model.prompt_ids(chat.messages[:-1])
            check_same(plain, prompt, made, 8)
        assert made.usage.failovers == 0


async def test_many_prompts_at_once_are_each_their_own(checkpoint: Checkpoint, plain: Any, tmp_path: Path) -> None:
    prompts = ["One", "Two and", "Three or four"]
    async with world_of(checkpoint, tmp_path, (1, 1)) as world:
        made = await generate_many(world.engine, prompts, SamplingParams(max_tokens=10), logprobs=True)
        for prompt, each in zip(prompts, made, strict=True):
            assert isinstance(each, Generation)
            check_same(plain, ids_of(world, prompt), each, 10)


@pytest.mark.parametrize("victim", [None, "b"])
async def test_beams_are_reordered_here_too(checkpoint: Checkpoint, tmp_path: Path, victim: str | None) -> None:
    async with world_of(checkpoint, tmp_path, (1, 1), SPANS | STANDBYS) as world:
        for name in SPANS:
            world.directory.throughput[world.nodes[name].account] = 1_000_000
        if victim:
            node = world.nodes[victim]
            honest = node.server.on_message
            steps = 0

            def on_message(conn: Any, message: Any, payload: memoryview) -> None:
                nonlocal steps
                honest(conn, message, payload)
                steps += isinstance(message, Step)
                if steps == 5:
                    steps += 1
                    world.kill("b")

            node.server.on_message = on_message  # type: ignore[method-assign]
        found, session = await world.engine.beams(
            "The capital of France is", SamplingParams(max_tokens=12), num_beams=3
        )
        assert [beam.token_ids for beam in found] == expected(checkpoint, 3, None)
        assert session.failovers == (1 if victim else 0)


@pytest.mark.parametrize("kept", [(3, 3), (6, 0), (-1, 2), (0, 7)])
def test_something_is_left_for_the_network(kept: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedModel):
        remote_span(BLOCKS, kept)
