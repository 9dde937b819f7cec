"""A node shows every receipt it signed, once, in order and a bounded number at a time, to whoever asks."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from books import PAYEE, PAYER, receipt
from databases import database, postgres_server, store
from node_peers import FakeClient, FakeDisk, World, inputs, running_node, until

from corolla_core.protocol.errors import OutOfCapacity, StoreError
from corolla_core.protocol.ids import ZERO_HASH, Hash32
from corolla_core.protocol.receipt import WireDtype
from corolla_core.protocol.span import Span
from corolla_core.store.node_store import NodeStore
from corolla_core.store.store import Store
from corolla_core.swarm.frame import MAX_HEADER_BYTES, encode
from corolla_core.swarm.messages import MAX_RECEIPTS, AskNamed, AskReceipts, Receipt, Receipts
from corolla_node.feed import LAG_MS

__all__ = ["database", "postgres_server", "store"]
A = Span(0, 2)


@pytest.mark.anyio
async def test_a_peer_is_shown_what_was_signed_once_it_has_settled() -> None:
    disk, world, late = FakeDisk(), World(), 0.0
    async with running_node(world, "a", A, disk=disk, clock=lambda: time.time() + late) as a:
        client = FakeClient(world, [a])
        await client.open()
        client.pay(10**5)
        client.step(1, 0, inputs(3))
        sent, _ = await client.expect(Receipt)
        client.pipes[0].send(AskReceipts(0, ZERO_HASH))
        answer, _ = await client.expect(Receipts)
        assert answer.receipts == []  # too fresh: an older one could still come
        await until(lambda: bool(disk.receipts))
        late = LAG_MS / 1000 + 1
        client.pipes[0].send(AskReceipts(0, ZERO_HASH))
        answer, _ = await client.expect(Receipts)
        assert answer == Receipts([sent.signed], False)
        place = sent.signed.receipt
        client.pipes[0].send(AskReceipts(place.t_out, place.hash()))
        answer, _ = await client.expect(Receipts)
        assert answer.receipts == []


@pytest.mark.anyio
async def test_who_names_receipts_is_shown_those_that_are_held_whoever_signed_them() -> None:
    disk, world = FakeDisk(), World()
    disk.receipts = [receipt(session=1, signer=PAYEE), receipt(session=2, signer=PAYER)]
    async with running_node(world, "a", A, disk=disk) as a:
        client = FakeClient(world, [a])
        names = [one.receipt.hash() for one in disk.receipts]
        client.pipes[0].send(AskNamed([*names[1:], bytes(32)]))
        answer, _ = await client.expect(Receipts)
        assert answer.receipts == disk.receipts[1:]


def test_receipts_are_found_by_their_hashes(store: Store) -> None:
    node = NodeStore(store)
    signed = [receipt(session=n) for n in range(3)]
    for one in signed:
        node.record_receipt(one)
    names = [one.receipt.hash() for one in signed]
    assert set(node.receipts_named([names[2], names[0], Hash32(bytes(32))])) == {signed[0], signed[2]}
    assert node.receipts_named([]) == []


@pytest.mark.anyio
async def test_a_disk_that_fails_is_a_typed_refusal_and_serving_goes_on() -> None:
    disk, world = FakeDisk(), World()
    async with running_node(world, "a", A, disk=disk) as a:
        client = FakeClient(world, [a])
        await client.open()
        disk.failing = StoreError("no", reason="unavailable")
        client.pipes[0].send(AskReceipts(0, ZERO_HASH))
        error, _ = await client.expect_fault()
        assert isinstance(error, OutOfCapacity)
        disk.failing = None
        client.pipes[0].send(AskReceipts(0, ZERO_HASH))
        await client.expect(Receipts)
        assert a.server.sessions == 1


@pytest.mark.anyio
async def test_who_asks_again_before_the_answer_is_refused() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        client = FakeClient(world, [a])
        for _ in range(3):
            client.pipes[0].send(AskReceipts(0, ZERO_HASH))
        for _ in range(2):
            error, _ = await client.expect_fault()
            assert isinstance(error, OutOfCapacity)
        await client.expect(Receipts)


def test_pages_hold_every_receipt_once_in_order_of_time_and_hash(store: Store) -> None:
    node = NodeStore(store)
    signed = [receipt(session=n, t_out=1000 + n // 7) for n in range(40)]
    for one in [*signed, receipt(session=99, signer=PAYER, t_out=1001)]:
        node.record_receipt(one)
    found = []
    t_out, after = 0, ZERO_HASH
    while page := node.receipts_after(t_out, after, before=1005, limit=6, signer=PAYEE.address):
        found += page
        t_out, after = page[-1].receipt.t_out, page[-1].receipt.hash()
    expected = sorted((one.receipt.t_out, one.receipt.hash()) for one in signed if one.receipt.t_out < 1005)
    assert [(one.receipt.t_out, one.receipt.hash()) for one in found] == expected
    assert node.receipts_after(2**63, Hash32(b"\xff" * 32), before=2**64, limit=5, signer=PAYEE.address) == []


def test_a_page_fits_a_frame() -> None:
    most = 2**64 - 1
    numbers = ("chain_id", "epoch", "pos_start", "n_pos", "batch", "t_in", "t_out")
    largest = replace(receipt().receipt, span=Span(4095, 4096), wire=WireDtype.BFLOAT16, **dict.fromkeys(numbers, most))
    one = largest.sign(PAYEE)
    (frame,) = encode(Receipts([one] * MAX_RECEIPTS, True))
    assert len(frame) < MAX_HEADER_BYTES
