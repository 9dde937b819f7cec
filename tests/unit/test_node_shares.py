"""What one client may hold of a node before it has paid, and at all."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest
from node_peers import FakeClient, World, inputs, running_node, until

from corolla_core.protocol.errors import InvalidInput, OutOfCapacity, SessionClosed, VoucherOverCap
from corolla_core.protocol.ids import Address, TrancheId
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import Fault, Opened
from corolla_node.desk import Policy
from corolla_node.kv_pool import KvPool, Share

pytestmark = pytest.mark.anyio

A = Span(0, 2)
ONE, TWO = Address("0x" + "11" * 20), Address("0x" + "22" * 20)


def session_ids(client: FakeClient, count: int) -> list[bytes]:
    return [client.session[:8] + number.to_bytes(8, "big") for number in range(count)]


async def test_a_leaf_that_cannot_pay_one_chunk_opens_nothing() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        poor = FakeClient(world, [a], caps=1)
        with pytest.raises(VoucherOverCap):
            await poor.open()
        assert (a.server.sessions, a.kv.used) == (0, 0)


async def test_a_leaf_that_pays_one_chunk_opens_a_session_of_many() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        one_chunk = FakeClient(world, [a], caps=160)
        await one_chunk.open(max_tokens=64, chunk_tokens=8)
        assert a.server.sessions == 1


async def test_one_client_cannot_lock_the_others_out() -> None:
    world = World()
    async with running_node(world, "a", A, policy=Policy(max_sessions=16)) as a:
        greedy, honest = FakeClient(world, [a], name="greedy"), FakeClient(world, [a], name="honest")
        first, second, third = session_ids(greedy, 3)
        await greedy.open(session=first)
        await greedy.open(session=second)
        with pytest.raises(OutOfCapacity):
            await greedy.open(session=third)
        await honest.open()
        assert a.server.sessions == 3


async def test_many_accounts_of_one_payer_share_its_share() -> None:
    world = World()
    async with running_node(world, "a", A, policy=Policy(max_sessions=8)) as a:
        one, other = FakeClient(world, [a], name="one"), FakeClient(world, [a], name="other")
        ours = world.chain.known[other.tranche_id]
        world.chain.known[other.tranche_id] = dataclasses.replace(ours, payer=one.signer.address)
        await one.open()
        with pytest.raises(OutOfCapacity):
            await other.open()


async def test_a_share_is_free_again_when_the_session_ends() -> None:
    pool, share = KvPool(100), Share(size=25, leases=2)
    lease = pool.reserve(20, holders=[ONE, ONE], share=share)
    with pytest.raises(OutOfCapacity) as refused:
        pool.reserve(6, holders=[ONE], share=share)
    assert refused.value.free == 5
    pool.reserve(25, holders=[TWO], share=share)
    lease.release()
    lease.release()
    pool.reserve(25, holders=[ONE], share=share)
    assert pool.used == 50


async def test_a_session_that_never_pays_ends_soon_whatever_it_sends() -> None:
    world = World()
    policy = Policy(first_step_grace=0.4, payment_grace=0.05, idle_grace=1800)
    async with running_node(world, "a", A, policy=policy) as a:
        client = FakeClient(world, [a])
        await client.open()

        async def nag() -> None:
            for number in range(1, 100):
                client.step(number, 0, inputs(60))
                await asyncio.sleep(0.05)

        nagging = asyncio.create_task(nag())
        try:
            await until(lambda: a.server.sessions == 0)
        finally:
            nagging.cancel()
        assert a.kv.used == 0


async def test_a_session_that_has_worked_may_rest() -> None:
    world = World()
    async with running_node(world, "a", A, policy=Policy(first_step_grace=0.2)) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.step(1, 0, inputs(1))
        await client.result()
        with pytest.raises(TimeoutError):
            await client.expect(SessionClosed, seconds=0.6)
        assert a.server.sessions == 1


async def test_one_stranger_cannot_take_every_place_where_sessions_are_opened() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        stranger, honest = FakeClient(world, [a], name="stranger"), FakeClient(world, [a], name="honest")
        asked = asyncio.Event()
        answer, known = world.chain.tranche, world.chain.known[honest.tranche_id]

        async def slow(tranche_id: TrancheId) -> object:
            if tranche_id == honest.tranche_id:
                return known
            await asked.wait()
            return await answer(tranche_id)

        world.chain.tranche = slow  # type: ignore[assignment]
        for session in session_ids(stranger, 80):
            stranger.pipes[0].send(stranger.open_message(0, session=session))
        await honest.open()
        assert a.server.sessions == 1
        refused = [message for _, message, _ in stranger.received if isinstance(message, Fault)]
        assert len(refused) == 72
        asked.set()
        await until(lambda: sum(isinstance(message, Opened) for _, message, _ in stranger.received) == 8)


async def test_what_is_announced_can_be_had() -> None:
    world = World()
    async with running_node(world, "a", A, policy=Policy(client_share=0.25)) as a:
        offered = a.server.kv_free_tokens
        client = FakeClient(world, [a])
        with pytest.raises((OutOfCapacity, InvalidInput)):
            await client.open(max_tokens=offered + 1)
        await client.open(max_tokens=offered)
        assert a.kv.used <= a.kv.total * 0.25
