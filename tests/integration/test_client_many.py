"""Many prompts at once: each gets its own text, in order, and nodes that serve the same blocks share the work."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from client_world import ClientWorld, client_world, greedy_ids, make_checkpoint
from node_peers import PRICE

from corolla.many import generate_many
from corolla.values import Generation
from corolla.wallet import WalletPolicy
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import CorollaError, InvalidInput, SpendingLimitExceeded
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar

pytestmark = pytest.mark.anyio
ROUTE = {"a": Span(0, 3), "b": Span(3, 6)}
REPLICAS = {"a2": Span(0, 3), "b2": Span(3, 6)}
PROMPTS = ["One", "Two and", "Three or four", "Five"]
PARAMS = SamplingParams(max_tokens=10)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


def ids_of(world: ClientWorld, text: str) -> list[int]:
    return list(world.model.tokenizer(text).input_ids)


def texts(made: list[Generation | CorollaError]) -> list[Generation]:
    assert all(isinstance(each, Generation) for each in made), made
    return [each for each in made if isinstance(each, Generation)]


async def test_every_prompt_gets_its_own_text_in_order(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE | REPLICAS) as world:
        made = texts(await generate_many(world.engine, PROMPTS, PARAMS))
        for prompt, each in zip(PROMPTS, made, strict=True):
            assert each.token_ids == greedy_ids(checkpoint, ids_of(world, prompt), 10)
        for name in world.nodes:
            assert world.charged(name) == world.paid(name)


async def test_nodes_over_the_same_blocks_get_as_many_prompts_each(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE | REPLICAS) as world:
        made = texts(await generate_many(world.engine, PROMPTS, PARAMS))
        served = Counter(hop.account for each in made for hop in each.route)
        assert served == {node.account: 2 for node in world.nodes.values()}
        assert not world.peers.sessions  # none is under way any more


async def test_a_node_that_is_four_times_as_fast_gets_more_of_them(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE | REPLICAS) as world:
        for name in ROUTE:
            world.directory.throughput[world.nodes[name].account] = 400
        for name in REPLICAS:
            world.directory.throughput[world.nodes[name].account] = 100
        made = texts(await generate_many(world.engine, PROMPTS * 2, PARAMS))
        served = Counter(hop.account for each in made for hop in each.route)
        for name in ROUTE:
            assert served[world.nodes[name].account] == 8  # the eighth at 2.75 times its first


async def test_no_more_are_under_way_than_at_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE) as world:
        most = 0

        def watch(*_: object) -> None:
            nonlocal most
            most = max(most, world.peers.sessions[world.nodes["a"].account])

        reserve = world.wallet.check_limit
        world.wallet.check_limit = lambda more: (watch(), reserve(more))[1]  # type: ignore[method-assign]
        texts(await generate_many(world.engine, PROMPTS * 2, PARAMS, at_once=3))
        assert most == 3


async def test_a_prompt_that_fails_leaves_the_others_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE) as world:
        first, broken, last = await generate_many(world.engine, ["One", "x" * 600, "Two"], PARAMS)
        assert isinstance(broken, InvalidInput)  # longer than the model's context
        for prompt, each in (("One", first), ("Two", last)):
            assert isinstance(each, Generation)
            assert each.token_ids == greedy_ids(checkpoint, ids_of(world, prompt), 10)


async def test_all_together_stay_within_the_spending_limit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    one = (len("same") + 10) * 6 * PRICE
    limit = Nectar(int(2.5 * one))
    async with client_world(checkpoint, tmp_path, ROUTE, wallet=WalletPolicy(limit=limit)) as world:
        made = await generate_many(world.engine, ["same"] * 4, PARAMS)
        assert sum(isinstance(each, Generation) for each in made) == 2
        assert sum(isinstance(each, SpendingLimitExceeded) for each in made) == 2
        assert world.wallet.committed <= limit


async def test_at_least_one_prompt_at_a_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE) as world:
        with pytest.raises(InvalidInput):
            await generate_many(world.engine, PROMPTS, PARAMS, at_once=0)
        assert await generate_many(world.engine, [], PARAMS) == []


async def test_a_failed_opening_does_not_count_as_a_session(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE, free=10) as world:
        made = await generate_many(world.engine, PROMPTS, PARAMS)
        assert all(isinstance(each, CorollaError) for each in made)
        assert not world.peers.sessions


async def test_no_node_is_asked_to_open_more_sessions_at_once_than_it_takes(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, ROUTE) as world:
        for node in world.nodes.values():
            node.disk.seconds = 0.1
        made = texts(await generate_many(world.engine, ["One"] * 24, SamplingParams(max_tokens=2), at_once=24))
        assert {each.usage.failovers for each in made} == {0}
        assert not any(world.peers.shunned(node.account) for node in world.nodes.values())
