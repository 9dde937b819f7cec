"""Positions that a client's earlier session computed, in its next one that begins with the same rows."""

from __future__ import annotations

import dataclasses
import secrets

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from node_peers import FakeClient, FakeNode, World, expected, inputs, running_node

from corolla_core.protocol import receipt as protocol
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import Close, Closed, Receipt
from corolla_node.desk import Policy
from corolla_node.prefixes import BLOCK, Block, Prefixes, Trail

pytestmark = pytest.mark.anyio
A = Span(0, 2)
SHARED = inputs(40, seed=7)


async def session(client: FakeClient, hidden_BTD: torch.Tensor, *, closing: bool = True) -> torch.Tensor:
    """All rows of a session that gets these in one step."""
    client.session = secrets.token_bytes(16)
    await client.open()
    client.pay(10_000)
    client.step(1, 0, hidden_BTD, keep=hidden_BTD.shape[1])
    rows = await client.result()
    if closing:
        client.pipes[0].send(Close(client.session))
        await client.expect(Closed)
    return rows


async def signed(client: FakeClient, node: FakeNode) -> protocol.Receipt:
    """What a node signed for the client's session."""
    while True:
        for _, message, _ in client.received:
            if isinstance(message, Receipt) and message.signed.signer() == node.account:
                receipt = message.signed.receipt
                if receipt.session_id == client.session:
                    return receipt
        await client.expect(Receipt)


def continued(tokens: int, *, seed: int) -> torch.Tensor:
    return torch.cat([SHARED, inputs(tokens, seed=seed)], dim=1)


async def test_what_a_clients_session_computed_the_next_one_takes_and_computes_the_rest() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await session(client, SHARED, closing=False)
        assert a.blocks.computed == 40
        rows = await session(client, continued(9, seed=8))
        assert a.blocks.computed == 40 + 49 - 32
        assert a.desk.prefixes.reused == 32
        assert torch.equal(rows, expected([A], continued(9, seed=8)))
        whole_blocks = continued(9, seed=8)[:, :48]
        rows = await session(client, whole_blocks)
        assert a.blocks.passes == [1, 1]  # nothing was left to compute
        assert torch.equal(rows, expected([A], whole_blocks))


async def test_reused_positions_are_charged_signed_for_and_go_on_as_if_computed() -> None:
    world = World()
    async with running_node(world, "a", A) as a, running_node(world, "b", Span(2, 3)) as b:
        client = FakeClient(world, [a, b])
        first = await session(client, SHARED)
        assert torch.equal(await session(client, SHARED), first)
        assert [node.desk.prefixes.reused for node in (a, b)] == [32, 32]
        assert [node.blocks.computed for node in (a, b)] == [48, 48]
        receipts = [await signed(client, node) for node in (a, b)]
        assert [receipt.n_pos for receipt in receipts] == [40, 40]
        assert receipts[0].out_root == receipts[1].in_root
        for node, price in ((a, 20), (b, 10)):
            assert node.desk.paybook.account(client.tranche_id).charged == 2 * 40 * price


async def test_another_client_learns_nothing_whoever_pays_for_it() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        one, other = FakeClient(world, [a], name="one"), FakeClient(world, [a], name="other")
        await session(one, SHARED)
        await session(other, SHARED)
        paid_for = FakeClient(world, [a], name="paid for")
        known = world.chain.known
        known[paid_for.tranche_id] = dataclasses.replace(known[paid_for.tranche_id], payer=one.signer.address)
        await session(paid_for, SHARED)
        assert (a.blocks.computed, a.desk.prefixes.reused) == (120, 0)


async def test_decoded_positions_are_found_too_whatever_was_rolled_back_between() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await session(client, SHARED[:, :14], closing=False)
        client.step(2, 14, inputs(6, seed=3))  # a draft that was wrong from its second row on
        await client.result()
        for number, position in enumerate(range(14, 34)):
            client.step(3 + number, position, SHARED[:, position : position + 1], crop=True)
            await client.result()
        await session(client, SHARED[:, :34])
        assert a.desk.prefixes.reused == 32


async def test_sessions_of_several_rows_share_nothing() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        for _ in range(2):
            client.session = secrets.token_bytes(16)
            await client.open(batch=2, max_tokens=40, chunk_tokens=4)
            client.pay(10_000)
            client.step(1, 0, SHARED.repeat(2, 1, 1))
            await client.result()
        assert a.desk.prefixes.used == 0


async def test_prefixes_lie_in_memory_no_session_has_and_are_gone_before_one_is_refused() -> None:
    world = World()
    each = 64 * (8 * 2 + 4 * 4)
    async with running_node(world, "a", A, kv_budget=3 * each, policy=Policy(client_share=1.0)) as a:
        client = FakeClient(world, [a])
        for seed in range(6):
            await session(client, inputs(48, seed=seed))
            assert 0 < a.desk.prefixes.used <= a.kv.free
        assert a.desk.prefixes.used == 2 * each  # all that the last session left, and still
        for open_ in range(3):
            rows = await session(client, inputs(48, seed=open_), closing=False)
            assert torch.equal(rows, expected([A], inputs(48, seed=open_)))
        assert (a.kv.free, a.desk.prefixes.used) == (0, 0)


async def test_a_new_node_computes_no_replay_twice() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await session(client, SHARED)
        client.session = secrets.token_bytes(16)
        await client.open()
        client.step(0, 0, SHARED, forward_from=40)
        client.step(1, 40, inputs(1, seed=1))
        rows = await client.result()
        assert torch.equal(rows, expected([A], continued(1, seed=1))[:, 40:])
        assert a.blocks.computed == 40 + 8 + 1


def block(number: int) -> Block:
    return Block(number, torch.full((1, BLOCK, 1), float(number)))


def test_what_was_not_used_for_longest_goes_first_and_the_end_of_a_prefix_before_its_beginning() -> None:
    prefixes = Prefixes()
    assert not prefixes.wants(b"1", 10)
    prefixes.limit(40)
    names = [b"1", b"2", b"3"]
    for count in (1, 2, 3):
        prefixes.keep(names[:count], block(count), 10)
    prefixes.keep([b"other"], block(9), 10)
    assert [each.part for each in prefixes.find(names, 0)] == [1, 2, 3]
    prefixes.keep([b"new"], block(8), 10)
    assert not prefixes.find([b"other"], 0)
    prefixes.limit(20)
    assert [each.part for each in prefixes.find(names, 0)] == [1]
    assert prefixes.used == 20
    prefixes.keep([b"large"], block(7), 30)
    assert not prefixes.find([b"large"], 0)
    assert prefixes.used == 20
    prefixes.limit(0)
    assert prefixes.used == 0


moves = st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=30)


@given(moves)
def test_a_trail_says_the_same_of_the_same_rows_however_they_came(moves: list[tuple[bool, int]]) -> None:
    trail, rows = Trail(b"scope"), bytearray()
    for number, (back, count) in enumerate(moves):
        if back:
            del rows[max(0, len(rows) - 4 * count) :]
            trail.crop(len(rows) // 4)
        elif count:
            new = b"".join(f"{number:04}".encode() for _ in range(count))
            rows += new
            trail.extend(memoryview(new), count)
        whole = Trail(b"scope")
        if rows:
            whole.extend(memoryview(bytes(rows)), len(rows) // 4)
        assert trail.names == whole.names[: len(trail.names)]
        if not any(back for back, _ in moves):
            assert trail.names == whole.names
    other = Trail(b"another scope")
    other.extend(memoryview(bytes(4 * BLOCK)), BLOCK)
    assert other.names != trail.names[:1]


def test_a_short_rollback_loses_no_name_and_a_long_one_to_nowhere_all_that_would_follow() -> None:
    def longer(start: int, stop: int) -> memoryview:
        return memoryview(b"".join(position.to_bytes(4, "big") for position in range(start, stop)))

    trail, straight = Trail(b""), Trail(b"")
    straight.extend(longer(0, 64), 64)
    trail.extend(longer(0, 47), 47)
    trail.extend(longer(90, 93), 3)
    trail.crop(47)
    trail.extend(longer(47, 64), 17)
    assert trail.names == straight.names
    trail.crop(5)
    trail.extend(longer(5, 64), 59)
    assert trail.names == []
    trail.crop(0)
    assert trail.names == []
