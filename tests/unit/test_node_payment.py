"""Paying a node: every bad voucher has its typed error, and nothing acknowledged can be forgotten."""

from __future__ import annotations

import asyncio
from time import time

import pytest
from node_peers import (
    DOMAIN,
    EXPIRES_IN,
    FakeClient,
    FakeDisk,
    FakeNode,
    World,
    expected,
    inputs,
    running_node,
    signer,
    until,
)

from corolla_core.protocol.errors import (
    ChainUnreachable,
    InvalidProof,
    InvalidSignature,
    StoreError,
    TrancheExpired,
    TrancheUnknown,
    VoucherForged,
    VoucherOverCap,
    VoucherStale,
    VoucherTooSmall,
)
from corolla_core.protocol.ids import ZERO_HASH, TrancheId
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.voucher import Voucher, escrow_domain
from corolla_core.swarm.messages import Branch, Close, Closed, Opened, Paid, Pay, amount

pytestmark = pytest.mark.anyio
A = Span(0, 2)


class SettableClock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time() + self.ahead


async def opened(world: World, node: FakeNode, *, caps: int = 10**6) -> FakeClient:
    client = FakeClient(world, [node], caps=caps)
    await client.open()
    return client


async def test_a_good_voucher_is_acknowledged_and_the_very_same_one_again() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        for _ in range(2):
            client.pay(100)
            paid, _ = await client.expect(Paid)
            assert (paid.tranche_id, paid.cumulative) == (client.tranche_id, amount(100))
        assert a.disk.vouchers[client.tranche_id].voucher.cumulative == 100


async def test_a_voucher_that_is_not_above_the_best_one_is_stale() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        client.pay(100)
        await client.expect(Paid)
        lower = client.voucher(a, 99)
        other_head = Voucher(client.tranche_id, a.account, Nectar(100), ZERO_HASH.__class__(b"h" * 32))
        same_amount = Pay(client.tranche_id, amount(100), b"h" * 32, other_head.sign(DOMAIN, client.signer).signature)
        for pay, offered in ((lower, 99), (same_amount, 100)):
            client.pipes[0].send(pay)
            error, _ = await client.expect_fault()
            assert isinstance(error, VoucherStale)
            assert (error.known, error.offered) == (100, offered)


async def test_a_voucher_signed_by_a_stranger_is_forged() -> None:
    world, stranger = World(), signer("stranger")
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        client.pipes[0].send(client.voucher(a, 100, by=stranger))
        error, _ = await client.expect_fault()
        assert isinstance(error, VoucherForged)
        assert error.signer == stranger.address


async def test_a_voucher_for_another_payee_chain_or_amount_is_forged() -> None:
    world = World()
    async with running_node(world, "a", A) as a, running_node(world, "b", A) as b:
        client = FakeClient(world, [a, b])
        await client.open(downstream=None)
        for_b = client.voucher(b, 100)
        other_chain = Voucher(client.tranche_id, a.account, Nectar(100), ZERO_HASH).sign(
            escrow_domain(1, DOMAIN.verifying_contract), client.signer
        )
        raised = client.voucher(a, 100)
        for pay in (
            for_b,
            Pay(client.tranche_id, amount(100), ZERO_HASH, other_chain.signature),
            Pay(client.tranche_id, amount(101), ZERO_HASH, raised.signature),
        ):
            client.pipes[0].send(pay)
            error, _ = await client.expect_fault()
            assert isinstance(error, VoucherForged)
            assert error.signer != client.signer.address
        assert a.desk.paybook.account(client.tranche_id).paid == 0


async def test_a_signature_that_is_none_is_refused() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        for signature in (bytes(65), b"\xff" * 65, bytes(64) + b"\x1b"):
            client.pipes[0].send(Pay(client.tranche_id, amount(100), ZERO_HASH, signature))
            error, _ = await client.expect_fault()
            assert isinstance(error, InvalidSignature)


async def test_a_voucher_over_the_leafs_cap_is_refused() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = await opened(world, a, caps=500)
        client.pay(501)
        error, _ = await client.expect_fault()
        assert isinstance(error, VoucherOverCap)
        assert (error.cap, error.offered) == (500, 501)
        client.pay(500)
        await client.expect(Paid)


async def test_an_expired_tranche_takes_no_voucher_and_gives_no_credit() -> None:
    world, clock, x = World(), SettableClock(), inputs(2)
    async with running_node(world, "a", A, clock=clock) as a:
        client = await opened(world, a)
        client.pay(20)
        await client.expect(Paid)
        clock.ahead = EXPIRES_IN + 1
        client.pay(500)
        error, _ = await client.expect_fault()
        assert isinstance(error, TrancheExpired)
        client.step(1, 0, x[:, :1])  # paid for before
        await client.result()
        client.step(2, 1, x[:, 1:])  # would be on credit
        error, fault = await client.expect_fault()
        assert (type(error), fault.step) == (TrancheExpired, 2)


async def test_a_tranche_about_to_expire_is_not_taken_on() -> None:
    world, clock = World(), SettableClock()
    async with running_node(world, "a", A, clock=clock) as a:
        client = FakeClient(world, [a])
        clock.ahead = EXPIRES_IN - 60
        client.pipes[0].send(client.open_message(0))
        error, _ = await client.expect_fault()
        assert isinstance(error, TrancheExpired)


async def test_a_voucher_on_a_tranche_nobody_opened_with_is_unknown() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        client.pay(100)
        error, _ = await client.expect_fault()
        assert isinstance(error, TrancheUnknown)
        client.tranche_id = TrancheId(b"n" * 32)
        client.pipes[0].send(client.open_message(0))
        error, _ = await client.expect_fault()
        assert isinstance(error, TrancheUnknown)


async def test_a_branch_that_does_not_lead_to_the_locked_root_is_refused() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        for changes in (
            {"cap": amount(10**6 + 1)},
            {"branch": Branch(1, [(b"x" * 32, amount(0))])},
            {"branch": Branch(5, [])},
        ):
            client.pipes[0].send(client.open_message(0, **changes))
            error, _ = await client.expect_fault()
            assert isinstance(error, InvalidProof)
        assert a.server.sessions == 0


async def test_a_tranche_is_read_from_the_chain_once() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        client.pipes[0].send(Close(client.session))
        await client.expect(Closed)
        world.chain.down = ChainUnreachable("30 seconds of nothing")
        await client.open()
        assert world.chain.reads == 1
        stranger = FakeClient(world, [a], name="stranger")
        stranger.pipes[0].send(stranger.open_message(0))
        error, _ = await stranger.expect_fault()
        assert isinstance(error, ChainUnreachable)
        assert a.server.sessions == 1


async def test_an_acknowledged_voucher_is_on_disk_before_it_is_acknowledged() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        a.disk.failing = StoreError("the disk is full", reason="full")
        client.pay(100)
        with pytest.raises(TimeoutError):
            await client.expect(Paid, seconds=0.3)
        client.step(1, 0, inputs(12))  # counted at once all the same: the step is served
        await client.result()
        a.disk.failing = None
        await client.expect(Paid)
        assert a.disk.vouchers[client.tranche_id].voucher.cumulative == 100


async def test_a_restarted_node_knows_what_was_paid_and_charged() -> None:
    world, disk, x = World(), FakeDisk(), inputs(6)
    async with running_node(world, "a", A, disk=disk) as a:
        client = await opened(world, a)
        client.pay(120)
        await client.expect(Paid)
        client.step(1, 0, x)
        await client.result()
        await until(lambda: disk.charges.get(client.tranche_id) == 120)
        # No goodbye: what follows sees only what is on disk by now.
        remembered = FakeDisk(vouchers=dict(disk.vouchers), charges=dict(disk.charges))
        world.kill(a)
    async with running_node(world, "a", A, disk=remembered) as a:
        client.pipes[0] = client.dial(a)
        client.pipes[0].send(client.open_message(0))
        opening, _ = await client.expect(Opened)
        assert (opening.paid, opening.charged) == (amount(120), amount(120))
        client.pay(119)
        error, _ = await client.expect_fault()
        assert isinstance(error, VoucherStale)


async def test_replayed_history_is_work_and_is_charged() -> None:
    world, x = World(), inputs(8)
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        client.step(0, 0, x, forward_from=8)
        client.step(1, 8, inputs(1, seed=2))
        error, _ = await client.expect_fault()
        assert isinstance(error, VoucherTooSmall)
        assert error.owed == 20
        assert a.desk.paybook.account(client.tranche_id).charged == 160


@pytest.mark.parametrize("grace", ["voucher in time", "voucher too late"])
async def test_parked_work_is_unlocked_by_exactly_what_is_owed(grace: str) -> None:
    world, x = World(), inputs(10)
    async with running_node(world, "a", A) as a:
        client = await opened(world, a)
        client.step(1, 0, x)
        owed = (10 - 8) * 20
        if grace == "voucher in time":
            await asyncio.sleep(0.05)
            client.pay(owed - 1)
            await client.expect(Paid)
            client.pay(owed)
        else:
            error, fault = await client.expect_fault()
            assert (type(error), error.owed, fault.step) == (VoucherTooSmall, owed, 1)
            client.pay(owed)
            client.step(1, 0, x)
        (result,) = [await client.result()]
        assert (result - expected([A], x)[:, -1:]).abs().max() == 0
