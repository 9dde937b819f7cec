"""Sessions of different clients in one pass of a node."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import torch
from node_peers import FakeClient, FakeNode, World, expected, inputs, running_node, until

from corolla_core.protocol.errors import OutOfCapacity, ServingError, TensorRejected
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import Close, Closed, amount
from corolla_node.desk import Policy
from corolla_node.passes import MAX_DECODE_ROWS

pytestmark = pytest.mark.anyio
A = Span(0, 2)


@asynccontextmanager
async def busy_node(prices: list[int]) -> AsyncIterator[tuple[FakeNode, list[FakeClient], threading.Event]]:
    """A node whose compute thread is held up by a session of its own until the event is set, and clients with open
    and paid sessions."""
    world, go = World(), threading.Event()
    async with running_node(world, "a", A) as a:
        others = [FakeClient(world, [a], name=f"client {number}") for number in range(len(prices))]
        first = FakeClient(world, [a], name="first")
        for client, price in zip((first, *others), (10, *prices), strict=True):
            await client.open(price=amount(price))
            client.pay(10_000)
        a.blocks.before_forward = lambda: go.wait(5)
        first.step(1, 0, inputs(1))
        await until(lambda: a.blocks.passes == [1])
        try:
            yield a, others, go
        finally:
            go.set()


async def test_sessions_that_are_ready_share_a_pass_and_each_gets_its_own_rows() -> None:
    async with busy_node([10] * 5) as (a, clients, go):
        rows = [inputs(1, seed=number) for number in range(5)]
        for client, hidden in zip(clients, rows, strict=True):
            client.step(1, 0, hidden)
        await until(lambda: a.desk.inbox.used == 6 * 16)
        go.set()
        for client, hidden in zip(clients, rows, strict=True):
            assert torch.equal(await client.result(), expected([A], hidden))
        assert a.blocks.passes == [1, 5]
        await until(lambda: a.desk.inbox.used == 0)


async def test_bad_sessions_of_a_pass_get_their_faults_and_the_others_their_rows() -> None:
    async with busy_node([10] * 4) as (a, (good, nan, broken, leaving), go):
        for client, hidden in (
            (broken, inputs(1)),
            (nan, torch.full((1, 1, 4), float("nan"))),
            (leaving, inputs(1)),
            (good, inputs(1, seed=3)),
        ):
            client.step(1, 0, hidden)
        await until(lambda: a.desk.inbox.used == 5 * 16)
        leaving.pipes[0].send(Close(leaving.session))
        await leaving.expect(Closed)
        failures = [RuntimeError("out of registers")]

        def burst() -> None:
            if failures:
                raise failures.pop()

        a.blocks.before_forward = burst
        go.set()
        assert torch.equal(await good.result(), expected([A], inputs(1, seed=3)))
        assert isinstance((await broken.expect_fault())[0], ServingError)
        assert isinstance((await nan.expect_fault())[0], TensorRejected)
        assert a.blocks.passes == [1, 2]
        accounts = [a.desk.paybook.account(client.tranche_id) for client in (good, nan, broken, leaving)]
        assert [(account.held, account.charged) for account in accounts] == [(0, 20), (0, 0), (0, 0), (0, 0)]
        nan.step(1, 0, inputs(1, seed=4))
        assert torch.equal(await nan.result(), expected([A], inputs(1, seed=4)))


async def test_who_offers_more_is_served_first_when_not_all_fit_and_the_rest_right_after() -> None:
    prices = [10] * MAX_DECODE_ROWS + [11, 12]
    async with busy_node(prices) as (a, clients, go):
        for client in clients:
            client.step(1, 0, inputs(1))
        await until(lambda: a.desk.inbox.used == (1 + len(clients)) * 16)
        full, rest = 1 + MAX_DECODE_ROWS, threading.Event()
        a.blocks.before_forward = lambda: a.blocks.computed < full or rest.wait(5)
        go.set()
        account = a.desk.paybook.account
        await until(lambda: sum(bool(account(client.tranche_id).charged) for client in clients) == MAX_DECODE_ROWS)
        behind = [client for client in clients if not account(client.tranche_id).charged]
        rest.set()
        assert behind == clients[MAX_DECODE_ROWS - 2 : MAX_DECODE_ROWS]
        for client in clients:
            await client.result()


async def test_sessions_that_want_more_memory_than_there_is_take_turns_and_lose_no_token() -> None:
    world = World()
    each = 64 * 8 * 2 + 64 * 4 * 4
    async with running_node(world, "a", A, kv_budget=4 * each + 100, policy=Policy(client_share=1.0)) as a:
        refusals: list[OutOfCapacity] = []

        async def grow(client: FakeClient, whole: torch.Tensor) -> None:
            while True:
                try:
                    await client.open()
                    break
                except OutOfCapacity as refusal:
                    refusals.append(refusal)
                    await asyncio.sleep(0.01)
            client.pay(10_000)
            rows = []
            for number, chunk in enumerate(whole.split(8, dim=1)):
                client.step(number + 1, 8 * number, chunk, keep=8)
                rows.append(await client.result())
                assert a.desk.prefixes.used <= a.kv.free
            assert torch.equal(torch.cat(rows, dim=1), expected([A], whole))
            client.pipes[0].send(Close(client.session))
            await client.expect(Closed)

        async with asyncio.TaskGroup() as tasks:
            for number in range(12):
                client = FakeClient(world, [a], name=f"client {number}")
                tasks.create_task(grow(client, inputs(64, seed=number)))
        assert refusals
        assert {(refusal.needed, refusal.free) for refusal in refusals} == {(each, 100)}
        assert (a.blocks.computed, a.kv.used) == (12 * 64, 0)


async def test_memory_is_refused_at_the_door_and_never_runs_out_in_a_pass() -> None:
    world = World()
    each = 64 * 8 * 2 + 64 * 4 * 4
    async with running_node(world, "a", A, kv_budget=3 * each, policy=Policy(client_share=1.0)) as a:
        clients = [FakeClient(world, [a], name=f"client {number}") for number in range(4)]
        for client in clients[:3]:
            await client.open()
            client.pay(10_000)
        clients[3].pipes[0].send(clients[3].open_message(0))
        refusal, _ = await clients[3].expect_fault()
        assert isinstance(refusal, OutOfCapacity)
        for turn in range(3):
            for client in clients[:3]:
                client.step(turn + 1, turn, inputs(1, seed=turn))
            for client in clients[:3]:
                await client.result()
        assert a.kv.used == 3 * each
        for client in clients[:3]:
            client.pipes[0].send(Close(client.session))
            await client.expect(Closed)
        assert a.kv.used == 0
