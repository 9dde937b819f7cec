"""Nodes die in the middle of a text: it comes out the same, and nobody is paid twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from client_world import ClientWorld, client_world, greedy_ids, make_checkpoint
from node_peers import PRICE

from corolla.values import Generation
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import NoRoute
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio
SPANS = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
STANDBYS = {"a2": Span(0, 2), "b2": Span(2, 4), "c2": Span(4, 6)}
PROMPT = "The capital of France is"
TOKENS = 24


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(checkpoint: Checkpoint) -> tuple[int, ...]:
    ids = list(checkpoint.tokenizer()(PROMPT).input_ids)
    return greedy_ids(checkpoint, ids, TOKENS)


async def generate(world: ClientWorld, deaths: dict[int, list[str]]) -> Generation:
    """A text during which, after so many tokens, these nodes die."""
    stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
    count = 0
    async for piece in stream:
        count += len(piece.token_ids)
        for name in deaths.pop(count, []):
            world.kill(name)
    assert deaths == {}
    return stream.generation


def first_choice(world: ClientWorld) -> None:
    """Make the router prefer a, b, c to their standbys."""
    for name in SPANS:
        world.directory.throughput[world.nodes[name].account] = 1_000_000


@pytest.mark.parametrize("victim", ["a", "b", "c"])
@pytest.mark.parametrize("at", [1, 7, 23])
async def test_text_survives_the_death_of_any_node(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, victim: str, at: int
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        first_choice(world)
        made = await generate(world, {at: [victim]})
        assert made.token_ids == undisturbed
        assert made.usage.failovers == 1
        positions = len(PROMPT) + TOKENS - 1
        for name in SPANS:
            if name == victim:
                assert world.charged(f"{name}2") == world.paid(f"{name}2") == positions * 2 * PRICE
            else:  # the survivors computed nothing again and were paid once
                assert world.charged(name) == world.paid(name) == positions * 2 * PRICE
        assert len(world.opener.opened) == 1  # the standby had a leaf already


@pytest.mark.parametrize("pair", [("a", "b"), ("b", "c"), ("a", "c"), ("a", "a2"), ("b", "b2")])
async def test_text_survives_two_deaths_in_a_row(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, pair: tuple[str, str]
) -> None:
    third = {"a3": Span(0, 2), "b3": Span(2, 4)}
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS | third) as world:
        first_choice(world)
        for name in STANDBYS:
            world.directory.throughput[world.nodes[name].account] = 500_000
        made = await generate(world, {5: [pair[0]], 6: [pair[1]]})
        assert made.token_ids == undisturbed


@pytest.mark.parametrize("together", [["a", "b"], ["b", "c"], ["a", "b", "c"], ["a", "c"]])
async def test_text_survives_deaths_at_the_same_moment(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, together: list[str]
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        first_choice(world)
        made = await generate(world, {9: together})
        assert made.token_ids == undisturbed
        for name in STANDBYS:
            assert world.paid(name) == world.charged(name)


async def test_a_lost_span_is_taken_over_by_parts_of_other_nodes(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    spans = SPANS | {"x": Span(1, 3), "y": Span(3, 5)}
    async with client_world(checkpoint, tmp_path, spans) as world:
        first_choice(world)
        made = await generate(world, {9: ["b"]})
        assert made.token_ids == undisturbed
        assert [str(hop.span) for hop in made.route] == ["0:2", "2:3", "3:4", "4:6"]


async def test_a_death_during_the_prompt_is_mended(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 7
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        first_choice(world)
        stream = world.engine.stream(prompt, SamplingParams(max_tokens=5))
        reading = asyncio.ensure_future(stream.read())
        for _ in range(10_000):
            if world.receipts_seen("b"):
                break
            await asyncio.sleep(0.001)
        world.kill("b")
        made = await reading
        ids = list(checkpoint.tokenizer()(prompt).input_ids)
        assert made.token_ids == greedy_ids(checkpoint, ids, 5)


async def test_without_a_standby_the_missing_blocks_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        with pytest.raises(NoRoute) as caught:
            await generate(world, {5: ["b"]})
        assert caught.value.missing == [2, 3]
        assert world.wallet.reserved == 0


async def test_a_node_that_joins_after_the_death_is_found(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
        count = 0
        async for piece in stream:
            count += len(piece.token_ids)
            if count == 5:
                world.kill("b")
                await world.add_node("late", Span(1, 5))
        assert stream.generation.token_ids == undisturbed
        assert len(world.opener.opened) == 2  # the newcomer had no leaf in the first tranche


async def test_a_conversation_survives_a_death_between_its_turns(checkpoint: Checkpoint, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=8)
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world, world.engine.chat() as chat:
        first_choice(world)
        await chat.send("Hello", params)
        world.kill("b")
        await asyncio.sleep(0.01)
        second = await chat.send("And again?", params)
        prompt = world.model.prompt_ids(chat.messages[:-1])
        assert second.token_ids == greedy_ids(checkpoint, prompt, 8)
        assert second.usage.cached_tokens > 0
        a, b2 = (next(n for n in second.usage.per_node if n.account == world.nodes[x].account) for x in ("a", "b2"))
        assert a.tokens < b2.tokens == second.usage.prompt_tokens + 7
