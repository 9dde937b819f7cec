"""A session over more than one node: hidden states flow down the route, and a lost node is replaced."""

from __future__ import annotations

import asyncio

import pytest
import torch
from node_peers import FakeClient, World, expected, inputs, running_node, until

from corolla_core.protocol.errors import (
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
    PositionMismatch,
)
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import Endpoint, Rewire, Rewired
from corolla_node.desk import Policy
from corolla_node.ports import Link, LinkHandler

pytestmark = pytest.mark.anyio
A, B = Span(0, 2), Span(2, 4)


async def test_hidden_states_flow_through_the_route_and_return_once_per_step() -> None:
    world, x = World(), inputs(6)
    async with running_node(world, "a", A) as a, running_node(world, "b", B) as b:
        client = FakeClient(world, [a, b])
        await client.open()
        client.pay(10_000)
        client.step(1, 0, x[:, :4])
        client.step(2, 4, x[:, 4:5])
        client.step(3, 5, x[:, 5:])
        whole = expected([A, B], x)
        for position in (3, 4, 5):
            assert torch.equal(await client.result(), whole[:, position : position + 1])


async def test_a_lost_node_is_replaced_by_replay_and_the_text_does_not_change() -> None:
    world, x = World(), inputs(8)
    async with (
        running_node(world, "a", A) as a,
        running_node(world, "b", B) as b,
        running_node(world, "standby", B) as standby,
    ):
        client = FakeClient(world, [a, b])
        await client.open()
        client.pay(10_000)
        client.step(1, 0, x[:, :5])
        await client.result()
        world.kill(b)
        error, fault = await client.expect_fault()
        assert isinstance(error, PeerUnreachable)
        assert error.peer == b.account
        client.step(2, 5, x[:, 5:6])  # refused at once: there is nowhere to send its output
        error, fault = await client.expect_fault()
        assert (type(error), fault.step) == (PeerUnreachable, 2)

        other = FakeClient(world, [standby], name="client")
        await other.open(upstream=address_bytes(a.account), session=client.session)
        other.pay(10_000)
        client.pipes[0].send(Rewire(client.session, standby.endpoint, 5))
        await client.expect(Rewired)
        whole = expected([A, B], x)
        for number, position in ((2, 5), (3, 6), (4, 7)):
            client.step(number, position, x[:, position : position + 1])
            assert torch.equal(await other.result(), whole[:, position : position + 1])
        assert a.blocks.computed == 8
        assert standby.blocks.computed == 8


async def test_a_step_lost_with_its_node_is_done_by_the_replacement_alone() -> None:
    world, x = World(), inputs(6, batch=2)
    async with (
        running_node(world, "a", A) as a,
        running_node(world, "b", B) as b,
        running_node(world, "standby", B) as standby,
    ):
        client = FakeClient(world, [a, b])
        await client.open(batch=2)
        client.pay(10_000)
        client.step(1, 0, x[:, :5])
        await client.result()
        b.blocks.before_forward = lambda: world_loop.call_soon_threadsafe(world.kill, b)
        world_loop = asyncio.get_running_loop()
        client.step(2, 5, x[:, 5:], reorder=[1, 0])
        error, _ = await client.expect_fault()
        assert isinstance(error, PeerUnreachable)

        # Node a has done step 2 and reordered its rows; the standby must still see the order from before.
        other = FakeClient(world, [standby], name="client")
        await other.open(upstream=address_bytes(a.account), session=client.session, batch=2)
        other.pay(10_000)
        client.pipes[0].send(Rewire(client.session, standby.endpoint, 5))
        await client.expect(Rewired)
        client.step(2, 5, x[:, 5:], reorder=[1, 0])
        straight = expected([A, B], torch.cat([x[[1, 0]][:, :5], x[:, 5:]], dim=1))
        assert torch.equal(await other.result(), straight[:, 5:])
        assert a.blocks.computed == 12


async def test_the_node_after_a_replaced_one_listens_to_its_new_upstream() -> None:
    world, x = World(), inputs(2)
    async with running_node(world, "a", A) as a, running_node(world, "b", B) as b:
        client = FakeClient(world, [a, b])
        await client.open(upstream=b"x" * 20)
        client.pay(10_000)
        client.step(1, 0, x[:, :1])
        with pytest.raises(PeerUnreachable, match="the next node refused"):
            await client.result()
        client.pipes[1].send(Rewire(client.session, None, 0, upstream=address_bytes(a.account)))
        await client.expect(Rewired)
        client.step(1, 0, x[:, :1])
        assert torch.equal(await client.result(), expected([A, B], x[:, :1]))


async def test_a_replay_of_rows_that_are_not_there_yet_is_refused() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pipes[0].send(Rewire(client.session, None, 3))
        error, fault = await client.expect_fault()
        assert isinstance(error, PositionMismatch)
        assert (error.expected, error.offered, fault.session) == (0, 3, client.session)


async def test_a_step_refused_while_it_waited_for_payment_takes_its_timer_with_it() -> None:
    world, x = World(), inputs(20)
    policy = Policy(payment_grace=0.5)
    async with (
        running_node(world, "a", A, policy=policy) as a,
        running_node(world, "b", B) as b,
        running_node(world, "standby", B) as standby,
    ):
        client = FakeClient(world, [a, b])
        await client.open()
        client.step(1, 0, x)  # more than the credit: it waits
        await until(lambda: a.desk.inbox.used > 0)
        world.kill(b)
        for _ in range(2):  # the loss, and the step that could not be sent on
            error, _ = await client.expect_fault()
            assert isinstance(error, PeerUnreachable)
        other = FakeClient(world, [standby], name="client")
        await other.open(upstream=address_bytes(a.account), session=client.session)
        client.pipes[0].send(Rewire(client.session, standby.endpoint, 0))
        await client.expect(Rewired)
        await asyncio.sleep(0.3)
        client.step(1, 0, x)  # has its own half second, not what was left of the other's
        await asyncio.sleep(0.35)
        other.pay(10_000)
        client.pipes[0].send(client.voucher(a, 10_000))
        assert torch.equal(await other.result(), expected([A, B], x)[:, -1:])


@pytest.mark.parametrize(
    "why", [PeerTimeout("h:1 took 5 s"), PeerMisbehaved("h:1 shows a certificate"), ValueError("h")]
)
async def test_a_client_is_not_told_why_the_next_node_cannot_be_reached(why: Exception) -> None:
    """It could name any host and port, and learn from the answers which are open and what is there."""

    async def refuse(endpoint: Endpoint, /, *, handler: LinkHandler) -> Link:
        raise why

    world = World(dialer=refuse)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        for _ in range(2):
            client.pipes[0].send(client.open_message(0, downstream=Endpoint(b"n" * 20, "h", 1, b"c" * 32, "")))
            error, _ = await client.expect_fault()
            assert (type(error), error.message) == (PeerUnreachable, "the next node cannot be reached")
            client.step(1, 0, inputs(1))
            error, fault = await client.expect_fault()
            assert (type(error), error.message, fault.step) == (PeerUnreachable, "the next node cannot be reached", 1)
            client.session = b"2" * 16
