"""A node signs over its upstream's receipt where that is about the rows it got, and over nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from node_peers import FakeClient, FakeNode, Pipe, World, expected, inputs, running_node, signer, until

from corolla_core.model.tensors import to_wire
from corolla_core.protocol.errors import LinkBroken, PeerMisbehaved, SessionUnknown
from corolla_core.protocol.ids import ZERO_HASH, address_bytes
from corolla_core.protocol.receipt import Receipt
from corolla_core.protocol.span import Span
from corolla_core.swarm import messages
from corolla_core.swarm.messages import Close, Closed, Rewire, Rewired, Step, Tensor
from corolla_node import signatory

pytestmark = pytest.mark.anyio
A, B, C = Span(0, 2), Span(2, 4), Span(4, 5)


@asynccontextmanager
async def three() -> AsyncIterator[tuple[World, list[FakeNode]]]:
    world = World()
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(running_node(world, name, span))
            for name, span in (("a", A), ("b", B), ("c", C))
        ]
        yield world, nodes


def of(client: FakeClient, node: FakeNode) -> list[Receipt]:
    """What a client got from a node."""
    return [
        message.signed.receipt
        for pipe, message, _ in client.received
        if isinstance(message, messages.Receipt) and pipe.peer == node.account
    ]


async def test_every_receipt_names_the_one_of_the_node_before_for_the_same_rows() -> None:
    x = inputs(14)
    async with three() as (world, nodes):
        client = FakeClient(world, nodes)
        await client.open()
        client.pay(10**5)
        client.step(1, 0, x[:, :3])
        for position in range(3, 14):
            client.step(position, position, x[:, position : position + 1])
        for _ in range(12):
            await client.result()
        for pipe in client.pipes:
            pipe.send(Close(client.session))
        for _ in client.pipes:
            await client.expect(Closed)
        a, b, c = (of(client, node) for node in nodes)
        assert [(r.pos_start, r.n_pos) for r in a] == [(0, 3), (3, 5), (8, 6)]
        assert [r.upstream_receipt_hash for r in a] == [ZERO_HASH] * 3
        for upper, lower in ((a, b), (b, c)):
            assert [r.upstream_receipt_hash for r in lower] == [r.hash() for r in upper]
            assert [r.in_root for r in lower] == [r.out_root for r in upper]
        for node in nodes[1:]:
            await node.desk.bookkeeper.flush()
            assert len({signed.signer() for signed in node.disk.receipts}) == 2  # the proof of a link is kept with it


class Impostor:
    """A node before `b` that does what a test tells it to."""

    def __init__(self, world: World, b: FakeNode) -> None:
        self.identity = signer("impostor")
        self.owner = FakeClient(world, [b])
        self.heard: list[Any] = []
        self.pipe: Pipe = world.connect(self.identity.address, self, b.endpoint)

    def on_message(self, conn: Any, message: Any, payload: memoryview) -> None:
        self.heard.append(message)

    def on_lost(self, conn: Any, error: Any) -> None: ...

    async def open(self) -> None:
        await self.owner.open(upstream=address_bytes(self.identity.address))
        self.owner.pay(10**5)

    def step(self, number: int, position: int, x: Any) -> None:
        dtype, shape, payload = to_wire(x)
        self.pipe.send(Step(self.owner.session, number, position, Tensor(dtype, list(shape)), keep=1), payload)

    async def receipt_of(self, node: FakeNode) -> messages.Receipt:
        return (await self.owner.expect(messages.Receipt))[0]

    def sign(self, about: Receipt, **changes: Any) -> messages.Receipt:
        """A receipt of its own for the rows that `about` got."""
        values = {"span": A, "out_root": about.in_root, "upstream_receipt_hash": ZERO_HASH} | changes
        return messages.Receipt(replace(about, **values).sign(self.identity))


async def known(node: FakeNode, impostor: Impostor, x: Any) -> Receipt:
    """What the node signs for these rows with no receipt of its upstream."""
    impostor.step(1, 0, x)
    return (await impostor.receipt_of(node)).signed.receipt


async def test_a_receipt_for_other_rows_is_not_signed_over_and_is_reported_to_the_client() -> None:
    world, x = World(), inputs(6)
    async with running_node(world, "b", B) as b:
        impostor = Impostor(world, b)
        await impostor.open()
        first = await known(b, impostor, x[:, :3])
        assert first.upstream_receipt_hash == ZERO_HASH
        false = impostor.sign(first, pos_start=3, out_root=b"x" * 32)
        impostor.pipe.send(false)
        impostor.step(2, 3, x[:, 3:])
        second = (await impostor.receipt_of(b)).signed.receipt
        assert (second.pos_start, second.n_pos, second.upstream_receipt_hash) == (3, 3, ZERO_HASH)
        error, _ = await impostor.owner.expect_fault()
        assert isinstance(error, LinkBroken)
        assert (error.peer, error.receipt) == (impostor.identity.address, false.signed.receipt.hash())


@pytest.mark.parametrize(
    "change",
    [
        {"span": Span(0, 1)},
        {"model_root": b"x" * 32},
        {"chain_id": 5},
        {"session_id": b"x" * 16},
        {"n_pos": 2},
        {"signature": b"\0" * 65},
        {"signature": b"\xff" * 65},
    ],
)
async def test_a_receipt_that_does_not_fit_is_refused_without_harm_to_the_session(change: dict[str, Any]) -> None:
    world, x = World(), inputs(6)
    async with running_node(world, "b", B) as b:
        impostor = Impostor(world, b)
        await impostor.open()
        first = await known(b, impostor, x[:, :3])
        signature = change.pop("signature", None)
        signed = impostor.sign(first, **({"pos_start": 3} | change)).signed
        impostor.pipe.send(messages.Receipt(signed if signature is None else replace(signed, signature=signature)))
        impostor.step(2, 3, x[:, 3:])
        second = (await impostor.receipt_of(b)).signed.receipt
        assert (second.pos_start, second.upstream_receipt_hash) == (3, ZERO_HASH)
        assert second.prev_receipt_hash == first.hash()
        await until(lambda: b.server.sessions == 1)
        assert not [m for _, m, _ in impostor.owner.received if isinstance(m, messages.Fault)]


async def test_only_the_node_before_is_listened_to() -> None:
    world, x = World(), inputs(3)
    async with running_node(world, "b", B) as b:
        impostor, stranger = Impostor(world, b), FakeClient(world, [b], name="stranger")
        await impostor.open()
        first = await known(b, impostor, x)
        stranger.pipes[0].send(impostor.sign(first, pos_start=3))
        error, fault = await stranger.expect_fault()
        assert isinstance(error, PeerMisbehaved)
        assert fault.session is None  # a node would take it for its next one's refusal to go on
        stranger.pipes[0].send(impostor.sign(first, session_id=b"q" * 16))
        assert isinstance((await stranger.expect_fault())[0], SessionUnknown)


async def test_receipts_that_meet_no_chunk_are_kept_in_bounded_memory() -> None:
    world, x = World(), inputs(6)
    async with running_node(world, "b", B) as b:
        impostor = Impostor(world, b)
        await impostor.open()
        first = await known(b, impostor, x[:, :3])
        for position in range(1000, 1000 + 3 * signatory.MAX_HEARD):
            impostor.pipe.send(impostor.sign(first, pos_start=position))
        impostor.pipe.send(impostor.sign(first, pos_start=3, out_root=b"x" * 32))
        impostor.step(2, 3, x[:, 3:])
        assert isinstance((await impostor.owner.expect_fault())[0], LinkBroken)
        session = next(iter(b.server._sessions.values()))
        assert len(session._receipts._heard) < signatory.MAX_HEARD


async def test_a_replayed_history_is_signed_over_nothing_and_at_once() -> None:
    x = inputs(12)
    world = World()
    async with (
        running_node(world, "a", A) as a,
        running_node(world, "b", B) as b,
        running_node(world, "standby", B) as standby,
    ):
        client, other = FakeClient(world, [a, b]), FakeClient(world, [standby], name="other")
        await client.open()
        client.pay(10**5)
        client.step(1, 0, x[:, :8])
        await client.result()
        await client.expect(messages.Receipt)
        other.session = client.session
        await other.open(upstream=address_bytes(a.account))
        other.pay(10**5)
        client.pipes[0].send(Rewire(client.session, standby.endpoint, 8))
        await client.expect(Rewired)
        client.step(2, 8, x[:, 8:])
        await other.expect(messages.Result)
        await until(lambda: len(of(other, standby)) == 2, seconds=signatory.UPSTREAM_SECONDS / 2)
        replayed, live = of(other, standby)
        assert (replayed.pos_start, replayed.n_pos, replayed.upstream_receipt_hash) == (0, 8, ZERO_HASH)
        assert live.upstream_receipt_hash == of(client, a)[-1].hash()
        assert (live.pos_start, live.n_pos) == (8, 4)


async def test_no_step_waits_for_a_receipt_that_does_not_come() -> None:
    world, x = World(), inputs(40)
    async with running_node(world, "b", B) as b:
        impostor = Impostor(world, b)
        await impostor.open()
        for position in range(40):
            impostor.step(position + 1, position, x[:, position : position + 1])
        outputs = [(await impostor.owner.expect(messages.Result, seconds=1))[1] for _ in range(40)]
        assert len(outputs) == 40
        assert bytes(outputs[-1]) == to_wire(expected([B], x)[:, -1:])[2]
        impostor.owner.pipes[0].send(Close(impostor.owner.session))
        await impostor.owner.expect(Closed, seconds=2 * signatory.CLOSING_SECONDS + 0.5)
        assert sum(r.n_pos for r in of(impostor.owner, b)) == 40
