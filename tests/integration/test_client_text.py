"""The client over real servers and real blocks: the text is plain transformers' own, and every node is paid exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from client_world import BLOCKS, HIDDEN, ClientWorld, client_world, fast_policy, greedy_ids, make_checkpoint
from node_peers import PRICE

from corolla.wallet import WalletPolicy
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import InsufficientFunds, InvalidInput, NoRoute, SpendingLimitExceeded
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar

pytestmark = pytest.mark.anyio
THREE = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


def ids_of(world: ClientWorld, text: str) -> list[int]:
    return list(world.model.tokenizer(text).input_ids)


async def test_streamed_text_is_plain_transformers_greedy_text(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=30))
        pieces = [piece async for piece in stream]
        made = stream.generation
        assert made.token_ids == greedy_ids(checkpoint, ids_of(world, PROMPT), 30)
        assert made.text == "".join(piece.text for piece in pieces)
        assert made.finish_reason == "length"
        assert [hop.span for hop in made.route] == list(THREE.values())
        assert sum(len(hop.span) for hop in made.route) == BLOCKS


async def test_every_node_is_paid_exactly_what_it_charged(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=21)).read()
        positions = made.usage.prompt_tokens + 20  # the last token is never sent anywhere
        assert [node.tokens for node in made.usage.per_node] == [positions] * 3
        for name, used in zip(THREE, made.usage.per_node, strict=True):
            assert used.cost == positions * 2 * PRICE
            assert used.paid == used.cost == world.charged(name) == world.paid(name)
        assert made.usage.cost == world.wallet.committed == 3 * positions * 2 * PRICE
        assert world.wallet.reserved == 0


async def test_receipts_cover_every_position_of_every_node(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=21)).read()
        for used in made.usage.per_node:
            mine = [s.receipt for s in world.receipts if s.signer() == used.account]
            assert sum(receipt.n_pos for receipt in mine) == used.tokens
            assert {receipt.span for receipt in mine} == {used.span}


async def test_a_long_prompt_goes_in_paid_chunks_and_gives_the_same_text(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 7
    async with client_world(checkpoint, tmp_path, THREE) as world:
        made = await world.engine.stream(prompt, SamplingParams(max_tokens=9)).read()
        assert made.usage.prompt_tokens > 256
        assert made.token_ids == greedy_ids(checkpoint, ids_of(world, prompt), 9)
        assert made.usage.failovers == 0


async def test_only_so_much_of_a_prompt_is_on_its_way_at_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 7
    window = 32 * HIDDEN * 4  # two chunks of 16 positions
    policy = fast_policy(prefill_tokens=16, window_bytes=window)
    async with client_world(checkpoint, tmp_path, THREE, policy=policy) as world:
        deepest = 0
        node = world.nodes["a"]
        honest = node.server.on_message

        def watch(conn: Any, message: Any, payload: memoryview) -> None:
            nonlocal deepest
            honest(conn, message, payload)
            deepest = max([deepest, *(s._queued_bytes for s in node.server._sessions.values())])

        node.server.on_message = watch  # type: ignore[method-assign]
        made = await world.engine.stream(prompt, SamplingParams(max_tokens=9)).read()
        assert made.token_ids == greedy_ids(checkpoint, ids_of(world, prompt), 9)
        assert 0 < deepest <= window


async def test_a_second_text_draws_on_the_same_tranche(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        for _ in range(3):
            await world.engine.stream(PROMPT, SamplingParams(max_tokens=5)).read()
        assert len(world.opener.opened) == 1
        assert world.paid("a") == world.charged("a") == 3 * (len(PROMPT) + 4) * 2 * PRICE


async def test_texts_at_the_same_time_are_each_their_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompts = ["One", "Two and", "Three or four"]
    async with client_world(checkpoint, tmp_path, THREE) as world:
        streams = [world.engine.stream(prompt, SamplingParams(max_tokens=12)) for prompt in prompts]
        made = await asyncio.gather(*(stream.read() for stream in streams))
        for prompt, generation in zip(prompts, made, strict=True):
            assert generation.token_ids == greedy_ids(checkpoint, ids_of(world, prompt), 12)
        for name in THREE:
            assert world.paid(name) == world.charged(name)


async def test_leaving_a_stream_early_ends_the_session_at_every_node(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        async with world.engine.stream(PROMPT, SamplingParams(max_tokens=50)) as stream:
            async for piece in stream:
                if piece.token_ids:
                    break
        assert [node.server.sessions for node in world.nodes.values()] == [0, 0, 0]
        assert world.wallet.reserved == 0
        with pytest.raises(InvalidInput):
            _ = stream.generation


async def test_a_stop_string_ends_the_text_before_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        whole = await world.engine.stream(PROMPT, SamplingParams(max_tokens=30)).read()
        printable = next(c for c in whole.text[3:] if c.isprintable() and c != "\ufffd")
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=30, stop=(printable,))).read()
        assert made.finish_reason == "stop"
        assert made.text == whole.text[: whole.text.index(printable)]


async def test_logprobs_are_those_of_the_tokens_chosen(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=6), logprobs=True).read()
        assert len(made.logprobs) == 6
        assert all(-10 < logprob < 0 for logprob in made.logprobs)


async def test_turns_of_a_conversation_reuse_what_the_nodes_hold(checkpoint: Checkpoint, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=8)
    async with client_world(checkpoint, tmp_path, THREE) as world, world.engine.chat(system="Be brief.") as chat:
        first = await chat.send("Hello", params)
        second = await chat.send("And again?", params)
        assert first.usage.cached_tokens == 0
        assert second.usage.cached_tokens >= first.usage.prompt_tokens
        assert [m["role"] for m in chat.messages] == ["system", "user", "assistant", "user", "assistant"]
        prompt = world.model.prompt_ids(chat.messages[:-1])
        assert len(prompt) == second.usage.prompt_tokens
        assert second.token_ids == greedy_ids(checkpoint, prompt, 8)
        new = second.usage.prompt_tokens - second.usage.cached_tokens + 7
        assert [node.tokens for node in second.usage.per_node] == [new] * 3


async def test_a_conversation_that_diverges_forgets_from_there_on(checkpoint: Checkpoint, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=8)
    async with client_world(checkpoint, tmp_path, THREE) as world, world.engine.chat() as chat:
        await chat.send("Tell me about apples", params)
        chat.messages = []
        other = await chat.send("Tell me about oranges", params)
        assert 0 < other.usage.cached_tokens < other.usage.prompt_tokens
        prompt = world.model.prompt_ids([{"role": "user", "content": "Tell me about oranges"}])
        assert other.token_ids == greedy_ids(checkpoint, prompt, 8)
        assert world.receipts == []  # kept when the session ends


async def test_a_conversation_outgrows_its_session_and_goes_on(checkpoint: Checkpoint, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=20)
    async with client_world(checkpoint, tmp_path, THREE) as world, world.engine.chat(capacity=40) as chat:
        for text in ("One", "Two", "Three"):
            made = await chat.send(text, params)
        prompt = world.model.prompt_ids(chat.messages[:-1])
        assert made.token_ids == greedy_ids(checkpoint, prompt, 20)
        assert all(node.server.sessions == 1 for node in world.nodes.values())


async def test_a_prompt_beyond_the_context_is_refused_before_anything_is_opened(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        with pytest.raises(InvalidInput):
            await world.engine.stream("x" * 600, SamplingParams(max_tokens=5)).read()
        assert world.opener.opened == []


async def test_spending_limit_is_checked_before_anything_is_sent(checkpoint: Checkpoint, tmp_path: Path) -> None:
    needed = (len(PROMPT) + 10) * BLOCKS * PRICE
    async with client_world(checkpoint, tmp_path, THREE, wallet=WalletPolicy(limit=Nectar(needed - 1))) as world:
        with pytest.raises(SpendingLimitExceeded) as caught:
            await world.engine.stream(PROMPT, SamplingParams(max_tokens=10)).read()
        assert (caught.value.limit, caught.value.needed) == (needed - 1, needed)
        assert world.opener.opened == []
        assert all(node.server.sessions == 0 for node in world.nodes.values())
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=9)).read()
        assert made.usage.cost <= needed - 1


async def test_too_small_a_deposit_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE, free=5) as world:
        with pytest.raises(InsufficientFunds) as caught:
            await world.engine.stream(PROMPT, SamplingParams(max_tokens=10)).read()
        assert caught.value.available == 5
        assert caught.value.needed == (len(PROMPT) + 10) * BLOCKS * PRICE


async def test_blocks_nobody_serves_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, {"a": Span(0, 2), "c": Span(4, 6)}) as world:
        with pytest.raises(NoRoute) as caught:
            await world.engine.stream(PROMPT, SamplingParams(max_tokens=10)).read()
        assert caught.value.missing == [2, 3]


async def test_overlapping_nodes_serve_parts_of_their_spans(checkpoint: Checkpoint, tmp_path: Path) -> None:
    spans = {"a": Span(0, 4), "b": Span(2, 6)}
    async with client_world(checkpoint, tmp_path, spans) as world:
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=10)).read()
        assert made.token_ids == greedy_ids(checkpoint, ids_of(world, PROMPT), 10)
        assert made.route[0].span.end == made.route[1].span.start
