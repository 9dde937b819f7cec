"""Two real nodes over TLS: linked receipts come to the client, and their rows are opened to whoever asks."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from node_peers import FakeChain, FakeClient, World, inputs, running_node, signer, until
from test_node_serving import RealClient, RealNode, checkpoint, manifest, node

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.front import load_front
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import InvalidInput, OpeningUnavailable, PeerMisbehaved
from corolla_core.protocol.opening import Side
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.reordering import Reordering
from corolla_core.protocol.span import Span
from corolla_core.swarm import messages
from corolla_core.swarm.messages import AskOpening, Close, Closed, Opening
from corolla_core.swarm.openings import ask_opening, fetch_opening
from corolla_node import openings

__all__ = ["checkpoint", "manifest"]
pytestmark = pytest.mark.anyio
VALIDATOR = signer("validator")


def of(client: FakeClient, node: Any) -> list[SignedReceipt]:
    return [
        message.signed
        for pipe, message, _ in client.received
        if isinstance(message, messages.Receipt) and pipe.peer == node.account
    ]


async def serve(client: RealClient, nodes: list[RealNode], front: Any) -> tuple[torch.Tensor, ...]:
    """A prompt and ten tokens; what went in, position by position, and what came out of the last one."""
    await client.connect()
    await client.open(model_root=client.manifest.root)
    client.pay(10**6)
    sent = [front.embed(torch.tensor([[3, 14, 15, 92, 65]]), position=0)]
    sent += [front.embed(torch.tensor([[each]]), position=5 + each) for each in range(10)]
    position, output = 0, sent[0]
    for number, hidden in enumerate(sent, start=1):
        client.step(number, position, hidden)
        output = await client.hidden()
        position += hidden.shape[1]
    for pipe in client.pipes:
        pipe.send(Close(client.session))
    for _ in client.pipes:
        await client.expect(Closed)
    return torch.cat(sent, dim=1), output


async def test_receipts_are_linked_and_their_rows_opened(checkpoint: Checkpoint, manifest: Manifest) -> None:
    chain = FakeChain()
    async with (
        node("one", Span(0, 3), chain, checkpoint, manifest) as a,
        node("two", Span(3, 4), chain, checkpoint, manifest) as b,
    ):
        client = RealClient(chain, [a, b], manifest)
        sent, last = await serve(client, [a, b], load_front(checkpoint))
        upper, lower = of(client, a), of(client, b)
        assert [(s.receipt.pos_start, s.receipt.n_pos) for s in upper] == [(0, 5), (5, 3), (8, 7)]
        assert [s.receipt.upstream_receipt_hash for s in lower] == [s.receipt.hash() for s in upper]
        assert all(s.signer() == b.account for s in lower)

        between = []
        for number, (first, second) in enumerate(zip(upper, lower, strict=True)):
            one = await fetch_opening(a.endpoint, first, identity=VALIDATOR)
            two = await fetch_opening(b.endpoint, second, identity=VALIDATOR)
            assert one.rows[Side.OUTPUTS] == two.rows[Side.INPUTS]
            assert (one.hidden, one.reorderings) == (32, ())
            start = first.receipt.pos_start
            mine = sent[0, start : start + first.receipt.n_pos].contiguous().numpy().tobytes()
            assert one.rows[Side.INPUTS] == mine
            between.append(two.rows[Side.OUTPUTS])
            some = await fetch_opening(
                b.endpoint, second, identity=VALIDATOR, positions=[start + 1], sides=[Side.OUTPUTS]
            )
            width = two.hidden * 4
            assert some.rows == {Side.OUTPUTS: two.rows[Side.OUTPUTS][width : 2 * width]}
            assert number < 3
        assert bytes(between[-1][-32 * 4 :]) == last[0, -1].numpy().tobytes()

        # Of a receipt it never signed a node has nothing to show.
        with pytest.raises(OpeningUnavailable) as refused:
            await fetch_opening(a.endpoint, lower[0], identity=VALIDATOR)
        assert refused.value.reason == "unknown"
        for pipe in client.pipes:
            await pipe.close()


class FakeLine:
    """Asks a fake node; `spoil` changes the rows on the way."""

    def __init__(self, world: World, node: Any, *, spoil: bool = False) -> None:
        self.client = FakeClient(world, [node], name="asker")
        self.peer = node.account
        self.spoil = spoil

    async def ask(self, question: Any, answer: type[Opening], *, seconds: float) -> tuple[Opening, memoryview]:
        self.client.pipes[0].send(question)
        message, payload = await self.client.expect(answer, seconds=seconds)
        return message, memoryview(bytes(payload[4:]) + b"evil") if self.spoil else payload


async def some_receipt(world: World, node: Any) -> SignedReceipt:
    client = FakeClient(world, [node])
    await client.open()
    client.pay(10**5)
    client.step(1, 0, inputs(4))
    return (await client.expect(messages.Receipt))[0].signed


async def test_rows_that_were_not_signed_for_are_the_nodes_misbehaviour() -> None:
    world = World()
    async with running_node(world, "a", Span(0, 2)) as a:
        signed = await some_receipt(world, a)
        with pytest.raises(PeerMisbehaved) as found:
            await ask_opening(FakeLine(world, a, spoil=True), signed.receipt)
        assert found.value.peer == a.account
        with pytest.raises(InvalidInput):
            await ask_opening(FakeLine(world, a), signed.receipt, positions=[signed.receipt.n_pos])


async def test_the_reorderings_of_a_beam_search_are_opened_with_its_rows() -> None:
    began = float(int(time.time()))
    world, now = World(), began
    async with running_node(world, "a", Span(0, 2), clock=lambda: now) as a:
        client = FakeClient(world, [a])
        await client.open(batch=2)
        client.pay(10**5)
        client.step(1, 0, inputs(7, batch=2))
        client.step(2, 7, inputs(1, batch=2), reorder=[1, 1])
        client.step(3, 8, inputs(1, batch=2), reorder=[1, 0])
        client.step(4, 9, inputs(1, batch=2))
        client.step(5, 10, inputs(1, batch=2), reorder=[0, 0])
        for _ in range(5):
            await client.result()
        await until(lambda: len(of(client, a)) == 2)
        now += 900  # the user thinks; the last chunk is signed when the session ends
        client.pipes[0].send(Close(client.session))
        await client.expect(Closed)
        signed = of(client, a)
        assert [s.receipt.t_out for s in signed] == [began * 1000, began * 1000, (began + 900) * 1000]
        opened = [await ask_opening(FakeLine(world, a), one.receipt) for one in signed]
        assert [each.reorderings for each in opened] == [
            (),
            (Reordering(7, (1, 1)),),
            (Reordering(8, (1, 0)), Reordering(10, (0, 0))),
        ]
        assert all((each.receipt.batch, each.receipt.wire, each.hidden) == (2, "float32", 4) for each in opened)
        one_row = await ask_opening(FakeLine(world, a), signed[2].receipt, positions=[8])
        assert one_row.reorderings == ()  # a row proves itself without


async def test_who_asks_too_much_is_told_to_wait_while_others_are_served() -> None:
    world = World()
    async with running_node(world, "a", Span(0, 2)) as a:
        signed = await some_receipt(world, a)
        greedy, modest = FakeClient(world, [a], name="greedy"), FakeClient(world, [a], name="modest")
        for _ in range(openings.MAX_READING_EACH + 1):
            greedy.pipes[0].send(AskOpening(signed.receipt.hash()))
        error, _ = await greedy.expect_fault()
        assert isinstance(error, OpeningUnavailable)
        assert (error.reason, error.receipt) == ("busy", signed.receipt.hash())
        modest.pipes[0].send(AskOpening(signed.receipt.hash(), [1], inputs=False))
        opening, _ = await modest.expect(Opening)
        assert opening.tensor.shape == [1, 1, 1, 4]


async def test_a_restarted_node_still_opens_what_it_signed() -> None:
    world = World()
    async with running_node(world, "a", Span(0, 2)) as a:
        signed = await some_receipt(world, a)
        disk = a.disk
    del disk.__dict__["archive"]
    world = World()
    async with running_node(world, "a", Span(0, 2), disk=disk) as again:
        opened = await ask_opening(FakeLine(world, again), signed.receipt)
        assert bytes(opened.rows[Side.INPUTS]) == inputs(4).numpy().tobytes()
