"""A private swarm: who is not attested by its consortium is in no route and hears nothing; who is revoked leaves."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from client_world import BLOCKS, ClientWorld, client_world, fast_policy, greedy_ids, make_checkpoint
from fake_operators import FakeOperators
from hypothesis import given, settings
from hypothesis import strategies as st
from node_peers import MODEL, signer

from corolla.peers import Peers
from corolla.router import find_route, find_spares
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import CorollaError, NoRoute
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.membership import Membership, MembersLookup
from corolla_core.swarm.messages import Endpoint
from corolla_node.gate import Gate

pytestmark = pytest.mark.anyio
SPANS = {"a": Span(0, 3), "b": Span(3, 6)}
STANDBYS = {"a2": Span(0, 3), "b2": Span(3, 6)}
OUTSIDERS = {"x": Span(0, 6), "y": Span(0, 3), "z": Span(3, 6)}
PROMPT = "The capital of France is"
TOKENS = 16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


def account(name: str) -> Address:
    return signer(name).address


def dialed(world: ClientWorld) -> set[Address]:
    """Whom the client, or any node, ever connected to."""
    return {pipe.peer for pipe in world.world.pipes} - {account("client")}


def prefer(world: ClientWorld, *names: str) -> None:
    for name in names:
        world.directory.throughput[account(name)] = 10_000_000


async def test_the_fastest_cheapest_stranger_is_never_so_much_as_connected_to(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    operators = FakeOperators(*map(account, SPANS | STANDBYS))
    nodes = SPANS | STANDBYS | OUTSIDERS
    async with client_world(checkpoint, tmp_path, nodes, membership=Membership(operators)) as world:
        prefer(world, *OUTSIDERS)
        for name in OUTSIDERS:
            world.directory.prices[account(name)] = 0
        await world.engine.meet()
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
        count = 0
        async for piece in stream:  # spares are connected to as well, and take over
            count += len(piece.token_ids)
            if count == 5:
                world.kill("a" if account("a") in {hop.account for hop in stream.route} else "a2")
        assert stream.generation.usage.failovers == 1
        assert stream.generation.token_ids == greedy_ids(checkpoint, world.model.prompt_ids(PROMPT), TOKENS)
        assert dialed(world) <= operators.members
        assert not {leaf.payee for tranche in world.opener.opened for leaf in tranche.leaves} - operators.members


async def test_strangers_alone_are_no_swarm(checkpoint: Checkpoint, tmp_path: Path) -> None:
    membership = Membership(FakeOperators())
    async with client_world(checkpoint, tmp_path, SPANS, membership=membership) as world:
        with pytest.raises(NoRoute):
            await world.engine.stream(PROMPT, SamplingParams(max_tokens=4)).read()
        assert dialed(world) == set()
        assert world.opener.opened == []


async def test_a_node_revoked_in_mid_text_gets_not_one_more_step(checkpoint: Checkpoint, tmp_path: Path) -> None:
    operators = FakeOperators(*map(account, SPANS | STANDBYS))
    membership = Membership(operators)
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS, membership=membership) as world:
        prefer(world, *SPANS)
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
        count, charged = 0, 0
        async for piece in stream:
            count += len(piece.token_ids)
            if count == 6:
                operators.members.remove(account("b"))
                await membership.refresh()  # what `watch` does every few seconds
                charged = len(PROMPT) + count  # the step under way is its last
        made = stream.generation
        assert made.token_ids == greedy_ids(checkpoint, world.model.prompt_ids(PROMPT), TOKENS)
        used = {node.account: node.tokens for node in made.usage.per_node}
        assert used[account("b")] <= charged
        assert used[account("b2")] == len(PROMPT) + TOKENS - 1  # the history too
        assert made.route[-1].account == account("b2")


async def test_a_private_nodes_door_is_shut_to_clients_that_are_not_attested(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    operators = FakeOperators(*map(account, SPANS))
    policy = fast_policy(answer=0.5)
    async with asyncio.TaskGroup() as tasks, client_world(checkpoint, tmp_path, SPANS, policy=policy) as world:
        for node in world.nodes.values():
            node.gate = Gate(node.server, Membership(operators), tasks)
        with pytest.raises(CorollaError):
            await world.engine.stream(PROMPT, SamplingParams(max_tokens=4)).read()
        assert [node.server.sessions for node in world.nodes.values()] == [0, 0]
        assert all(not node.disk.receipts for node in world.nodes.values())


async def test_members_serve_each_other_behind_their_doors(checkpoint: Checkpoint, tmp_path: Path) -> None:
    operators = FakeOperators(*map(account, SPANS), account("client"))
    async with asyncio.TaskGroup() as tasks, client_world(checkpoint, tmp_path, SPANS) as world:
        for node in world.nodes.values():
            node.gate = Gate(node.server, Membership(operators), tasks)
        made = await world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS)).read()
        assert made.token_ids == greedy_ids(checkpoint, world.model.prompt_ids(PROMPT), TOKENS)


# ---- the filter, whatever is announced and attested ----

NAMES = [f"node {n}" for n in range(8)]


def announced(name: str, span: Span, price: int, throughput: int) -> Announcement:
    return Announcement(
        network="test",
        model_root=MODEL,
        span=span,
        account=account(name),
        peer_id="",
        host=name,
        port=1,
        cert_hash=Hash32(b"c" * 32),
        price_per_token_block=price,
        numeric_class=NumericClass.FP32,
        wire_dtypes=NumericClass.FP32.wires,
        throughput=throughput,
        kv_free_tokens=100_000,
        state=NodeState.ONLINE,
        issued_at=0,
        expires_at=60_000,
    )


SPAN = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS)).filter(lambda s: s[0] < s[1])
NODES = st.lists(
    st.builds(
        announced,
        st.sampled_from(NAMES),
        SPAN.map(lambda s: Span(*s)),
        st.integers(0, 100),
        st.integers(1, 10**7),
    ),
    max_size=8,
    unique_by=lambda a: a.account,
)


@settings(max_examples=60)
@given(NODES, st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
async def test_no_candidate_spare_or_lot_is_ever_a_stranger(
    nodes: list[Announcement], members: set[str], revoked: set[str]
) -> None:
    class Fixed:
        async def lookup(self, model_root: Any, num_blocks: int) -> list[Announcement]:
            return nodes

    operators = FakeOperators(*map(account, members))
    membership = Membership(operators)
    peers = Peers(
        MembersLookup(Fixed(), membership),
        MODEL,
        BLOCKS,
        rtt=lambda _: 0.01,
        admitted=membership.admitted,
        rng=random.Random(0),
    )
    await peers.refresh()
    for allowed in (set(operators.members), operators.members - set(map(account, revoked))):
        operators.members = allowed
        await membership.refresh()
        candidates = peers.candidates(tokens=1, wire_dtype="float32")
        assert {c.account for c in candidates} == {a.account for a in nodes} & allowed
        lot = peers.by_lot()
        assert (lot is None) == (not candidates)
        assert lot is None or Address(account_of(lot)) in allowed
        try:
            route = find_route(candidates, Span(0, BLOCKS))
        except NoRoute:
            continue
        spares = find_spares(candidates, route)
        used = {leg.account for leg in route} | {s.account for chains in spares for c in chains for s in c}
        assert used <= allowed


def account_of(endpoint: Endpoint) -> Address:
    return next(account(name) for name in NAMES if bytes.fromhex(account(name)[2:]) == bytes(endpoint.account))
