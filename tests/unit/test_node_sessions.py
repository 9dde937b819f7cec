"""A session on a node: what it computes, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio

import pytest
import torch
from fake_blocks import FakeBlocks, FakeCache
from node_peers import FakeClient, World, expected, inputs, running_node, until

from corolla_core.protocol.errors import (
    Draining,
    InvalidInput,
    NotServed,
    OutOfCapacity,
    PeerMisbehaved,
    PositionMismatch,
    PriceTooLow,
    RowTooLarge,
    ServingError,
    SessionClosed,
    SessionUnknown,
    TensorRejected,
    VoucherTooSmall,
)
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import (
    Ask,
    Close,
    Closed,
    Info,
    Opened,
    Paid,
    Pong,
    Receipt,
    Result,
    Rewire,
    amount,
)
from corolla_node.desk import Policy

pytestmark = pytest.mark.anyio
A, B = Span(0, 2), Span(2, 4)


async def test_only_the_wanted_trailing_positions_come_back() -> None:
    world, x = World(), inputs(6)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(10_000)
        client.step(1, 0, x[:, :3], keep=0)
        message, payload = await client.expect(Result)
        assert (message.tensor, message.pos, len(payload)) == (None, 0, 0)
        client.step(2, 3, x[:, 3:], keep=2)
        message, _ = await client.expect(Result)
        assert (message.pos, message.tensor.shape) == (4, [1, 2, 4])


async def test_a_step_seen_before_is_answered_from_kept_rows_and_not_charged() -> None:
    world, x = World(), inputs(3)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(10_000)
        client.step(1, 0, x)
        first = await client.result()
        charged = a.desk.paybook.account(client.tranche_id).charged
        client.step(1, 0, x)
        assert torch.equal(await client.result(), first)
        assert a.blocks.computed == 3
        assert a.desk.paybook.account(client.tranche_id).charged == charged == 3 * 2 * 10


async def test_cropping_and_reordering_rows_equals_never_having_computed_the_others() -> None:
    world = World()
    x, y = inputs(4, batch=2), inputs(2, batch=2, seed=1)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open(batch=2)
        client.pay(10_000)
        client.step(1, 0, x, keep=4)
        await client.result()
        client.step(2, 3, y, keep=2, crop=True, reorder=[1, 1])
        straight = expected([A], torch.cat([x[[1, 1]][:, :3], y], dim=1))
        assert torch.equal(await client.result(), straight[:, 3:])


class _Stubborn(FakeBlocks):
    """Keeps a state that cannot be rolled back."""

    def new_cache(self, batch: int, max_tokens: int) -> FakeCache:
        class Cache(FakeCache):
            def crop(self, length: int) -> None:
                raise PositionMismatch("cannot be rolled back", expected=self.length, offered=length)

        return Cache(batch)


async def test_a_state_that_cannot_be_rolled_back_is_a_refusal_and_the_session_goes_on() -> None:
    world, x = World(), inputs(6)
    async with running_node(world, "a", A, blocks=_Stubborn(A)) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(10_000)
        client.step(1, 0, x[:, :4])
        await client.result()
        client.step(2, 2, x[:, 2:3], crop=True)
        error, fault = await client.expect_fault()
        assert isinstance(error, PositionMismatch)
        assert (fault.step, error.expected, error.offered) == (2, 4, 2)
        assert a.desk.paybook.account(client.tranche_id).charged == 4 * 2 * 10
        client.step(3, 4, x[:, 4:], keep=2)
        assert torch.equal(await client.result(), expected([A], x)[:, 4:])


async def test_a_part_of_the_nodes_span_can_be_used_alone() -> None:
    world, x = World(), inputs(2)
    async with running_node(world, "a", Span(0, 4)) as a:
        client = FakeClient(world, [a])
        await client.open(start=1, end=3)
        client.pay(2 * 2 * 10)
        client.step(1, 0, x, keep=2)
        assert torch.equal(await client.result(), expected([Span(1, 3)], x))
        assert a.desk.paybook.account(client.tranche_id).charged == 2 * 2 * 10


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model_root": b"x" * 32}, NotServed),
        ({"end": 3}, NotServed),
        ({"start": 2, "end": 2}, InvalidInput),
        ({"wire_dtype": "int64"}, InvalidInput),
        ({"wire_dtype": ""}, InvalidInput),
        ({"batch": 16, "chunk_tokens": 1025}, InvalidInput),
        ({"chunk_tokens": 9}, InvalidInput),
        ({"price": amount(9)}, PriceTooLow),
        ({"max_tokens": 2**24, "batch": 1024}, OutOfCapacity),
    ],
)
async def test_an_open_that_cannot_be_served_is_refused_with_its_reason(
    changes: dict[str, object], error: type[Exception]
) -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        client.pipes[0].send(client.open_message(0, **changes))
        refusal, fault = await client.expect_fault()
        assert isinstance(refusal, error)
        assert fault.session == client.session
        assert a.kv.used == 0


async def test_a_node_with_noise_of_its_own_takes_no_session_over_int8() -> None:
    world = World()
    async with running_node(world, "a", A, numeric_class=NumericClass.BF16) as a:
        client = FakeClient(world, [a])
        client.pipes[0].send(client.open_message(0, wire_dtype="int8"))
        refusal, _ = await client.expect_fault()
        assert isinstance(refusal, InvalidInput)
        client.pipes[0].send(client.open_message(0, wire_dtype="bfloat16"))
        await client.expect(Opened)


class WideBlocks(FakeBlocks):
    hidden_size = 4096


@pytest.mark.parametrize(
    ("batch", "wire_dtype", "fits"),
    [
        (6, "float32", True),
        (7, "float32", False),
        (13, "bfloat16", False),
        (23, "int8", True),
        (24, "int8", False),
    ],
)
async def test_no_session_is_opened_whose_rows_could_never_be_shown_on_chain(
    batch: int, wire_dtype: str, fits: bool
) -> None:
    world = World()
    async with running_node(world, "a", A, blocks=WideBlocks(A), kv_budget=10**8) as a:
        client = FakeClient(world, [a])
        client.pipes[0].send(client.open_message(0, batch=batch, wire_dtype=wire_dtype))
        if fits:
            await client.expect(Opened)
            return
        refusal, _ = await client.expect_fault()
        assert isinstance(refusal, RowTooLarge)
        row = {"float32": 4 * 4096, "bfloat16": 2 * 4096, "int8": 4096 + 2 * 64}[wire_dtype]
        assert (refusal.limit, refusal.offered) == (98_304, batch * row)
        assert a.kv.used == 0


@pytest.mark.parametrize(
    ("tensor", "changes", "error"),
    [
        (torch.full((1, 1, 4), float("nan")), {}, TensorRejected),
        (torch.zeros(1, 1, 4, dtype=torch.float16), {}, TensorRejected),
        (torch.zeros(2, 1, 4), {}, TensorRejected),
        (torch.zeros(1, 1, 5), {}, TensorRejected),
        (torch.zeros(1, 129, 4), {}, TensorRejected),
        (torch.zeros(1, 65, 4), {}, OutOfCapacity),
        (torch.zeros(1, 1, 4), {"keep": 2}, InvalidInput),
        (torch.zeros(1, 1, 4), {"reorder": [1]}, InvalidInput),
        (torch.zeros(1, 1, 4), {"reorder": [0, 0]}, InvalidInput),
        (torch.zeros(1, 1, 4), {"pos": 5}, PositionMismatch),
    ],
)
async def test_a_bad_step_is_refused_and_the_session_goes_on(
    tensor: torch.Tensor, changes: dict[str, int], error: type[Exception]
) -> None:
    world, x = World(), inputs(1)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(10_000)
        client.step(1, changes.pop("pos", 0), tensor, **changes)
        refusal, fault = await client.expect_fault()
        assert isinstance(refusal, error)
        assert fault.step == 1
        client.step(1, 0, x)
        assert torch.equal(await client.result(), expected([A], x))
        assert a.desk.inbox.used == 0
        account = a.desk.paybook.account(client.tranche_id)
        assert (account.held, account.charged) == (0, 20)


async def test_strangers_reach_no_session() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        stranger = FakeClient(world, [a], name="stranger")
        stranger.session = client.session
        stranger.step(1, 0, inputs(1))
        error, _ = await stranger.expect_fault()
        assert isinstance(error, PeerMisbehaved)
        for message in (Close(client.session), Rewire(client.session, None, 0)):
            stranger.pipes[0].send(message)
            error, _ = await stranger.expect_fault()
            assert isinstance(error, SessionUnknown)
        stranger.pipes[0].send(stranger.open_message(0))
        error, _ = await stranger.expect_fault()
        assert isinstance(error, InvalidInput)
        stranger.pipes[0].send(Pong(1))
        error, _ = await stranger.expect_fault()
        assert isinstance(error, PeerMisbehaved)
        assert a.server.sessions == 1


async def test_a_session_that_breaks_takes_no_other_with_it() -> None:
    world, x = World(), inputs(2)
    async with running_node(world, "a", A) as a:
        victim, other = FakeClient(world, [a], name="victim"), FakeClient(world, [a], name="other")
        for client in (victim, other):
            await client.open()
            client.pay(10_000)
        a.blocks.break_next = RuntimeError("out of registers")
        victim.step(1, 0, x)
        error, fault = await victim.expect_fault()
        assert (type(error), fault.step) == (ServingError, 1)
        other.step(1, 0, x, keep=2)
        assert torch.equal(await other.result(), expected([A], x))
        victim.step(2, 2, x)
        error, _ = await victim.expect_fault()
        assert isinstance(error, SessionUnknown)
        assert a.desk.paybook.account(victim.tranche_id).charged == 0


async def test_memory_is_given_back_exactly_once_however_a_session_ends() -> None:
    world, x = World(), inputs(4)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        for ending in ("close", "vanish", "close in mid-step"):
            await client.open()
            client.pipes[0].send(client.voucher(a, 10_000))
            assert a.kv.used == 64 * 8 * 2 + 64 * 4 * 4
            client.step(1, 0, x)
            if ending == "close":
                await client.result()
            if ending == "vanish":
                client.pipes[0].cut()
                client.pipes[0] = client.dial(a)
            else:
                client.pipes[0].send(Close(client.session))
                await client.expect(Closed)
            await until(lambda: a.kv.used == a.server.sessions == 0)
            assert a.desk.inbox.used == 0


async def test_a_client_that_comes_back_in_time_finds_its_session() -> None:
    world, x = World(), inputs(2)
    async with running_node(world, "a", A, policy=Policy(orphan_grace=0.1)) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(10_000)
        client.step(1, 0, x[:, :1])
        await client.result()
        client.pipes[0].cut()
        await asyncio.sleep(0.02)
        client.pipes[0] = client.dial(a)
        client.step(2, 1, x[:, 1:])
        assert torch.equal(await client.result(), expected([A], x)[:, 1:])
        await asyncio.sleep(0.15)
        assert a.server.sessions == 1


async def test_a_session_nobody_uses_gives_its_memory_back() -> None:
    world, x = World(), inputs(2)
    async with running_node(world, "a", A, policy=Policy(idle_grace=0.3)) as a:
        idle, busy = FakeClient(world, [a], name="idle"), FakeClient(world, [a], name="busy")
        for client in (idle, busy):
            await client.open()
            client.pay(10_000)
        await asyncio.sleep(0.2)
        busy.step(1, 0, x)
        await busy.result()
        error, fault = await idle.expect_fault(seconds=2)
        assert (type(error), fault.session) == (SessionClosed, idle.session)
        assert a.server.sessions == 1
        await until(lambda: a.kv.used == 0)


async def test_a_draining_node_finishes_its_sessions_and_takes_no_new_one() -> None:
    world, x = World(), inputs(2)
    async with running_node(world, "a", A) as a:
        old, new = FakeClient(world, [a], name="old"), FakeClient(world, [a], name="new")
        await old.open()
        old.pay(10_000)
        drained = asyncio.create_task(a.server.drain(5))
        await asyncio.sleep(0)
        new.pipes[0].send(new.open_message(0))
        error, _ = await new.expect_fault()
        assert isinstance(error, Draining)
        old.step(1, 0, x, keep=2)
        assert torch.equal(await old.result(), expected([A], x))
        old.pipes[0].send(Close(old.session))
        async with asyncio.timeout(2):
            await drained


async def test_receipts_cover_every_position_in_one_chain() -> None:
    world, x = World(), inputs(14)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(10_000)
        client.step(1, 0, x[:, :3])
        for position in range(3, 14):
            client.step(position, position, x[:, position : position + 1])
        for _ in range(12):
            await client.result()
        client.pipes[0].send(Close(client.session))
        await client.expect(Closed)
        receipts = [message.signed.receipt for _, message, _ in client.received if isinstance(message, Receipt)]
        assert [(r.pos_start, r.n_pos) for r in receipts] == [(0, 3), (3, 5), (8, 6)]
        assert receipts[0].prev_receipt_hash == bytes(32)
        assert receipts[1].prev_receipt_hash != bytes(32)
        await a.desk.bookkeeper.flush()
        signed = a.disk.receipts
        assert [r.signer() for r in signed] == [a.account] * 3
        assert signed[1].receipt.prev_receipt_hash == signed[0].receipt.hash()


async def test_a_step_waits_for_its_voucher_and_is_dropped_with_those_behind_it_when_none_comes() -> None:
    world, x = World(), inputs(24)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.step(1, 0, x[:, :20])
        client.step(2, 20, x[:, 20:21])
        error, fault = await client.expect_fault()
        assert isinstance(error, VoucherTooSmall)
        assert (error.owed, error.offered, fault.step) == ((20 - 8) * 2 * 10, 0, 1)
        client.pipes[0].send(client.voucher(a, error.owed))
        client.step(1, 0, x[:, :20])
        await client.result()
        client.step(2, 20, x[:, 20:21])
        await asyncio.sleep(0.05)
        assert a.blocks.computed == 20
        client.pipes[0].send(client.voucher(a, error.owed + 20))
        assert torch.equal(await client.result(), expected([A], x)[:, 20:21])
        assert a.desk.inbox.used == 0


async def test_two_sessions_of_one_tranche_share_its_money() -> None:
    world, x = World(), inputs(8)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        twin = FakeClient(world, [a])
        twin.session = b"t" * 16
        await twin.open()
        client.step(1, 0, x)
        await client.result()  # one chunk on credit: there is none left for the twin
        twin.step(1, 0, x[:, :1])
        error, _ = await twin.expect_fault()
        assert (type(error), error.owed) == (VoucherTooSmall, 20)


async def test_a_node_tells_anyone_how_it_is() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pipes[0].send(Ask())
        info, _ = await client.expect(Info)
        assert (info.start, info.end, info.sessions, info.draining) == (0, 2, 1, False)
        assert info.kv_total - info.kv_free == a.kv.used > 0


async def test_opened_tells_what_was_paid_and_charged_before() -> None:
    world, x = World(), inputs(2)
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(500)
        await client.expect(Paid)
        client.step(1, 0, x)
        await client.result()
        client.pipes[0].send(Close(client.session))
        await client.expect(Closed)
        opened = (await client.open())[0]
        assert isinstance(opened, Opened)
        assert (opened.paid, opened.charged) == (amount(500), amount(40))
