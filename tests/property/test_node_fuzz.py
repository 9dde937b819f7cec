"""Any message from anyone: the node answers with a typed error or does what was asked, and others never notice."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import torch
from any_receipt import signed_receipts
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from node_peers import MODEL, PRICE, FakeClient, World, expected, inputs, running_node, signer, until

from corolla_core.protocol.errors import (
    CorollaError,
    NetworkError,
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
    from_wire,
)
from corolla_core.protocol.span import Span
from corolla_core.swarm import messages
from corolla_core.swarm.dial import dial
from corolla_core.swarm.frame import payload_bytes
from corolla_core.swarm.messages import Endpoint, Fault, Tensor, amount
from corolla_node.ports import Link, LinkHandler

A = Span(0, 2)
SESSIONS = [b"s" * 16, b"u" * 16]

counts = st.integers(0, 2**32 - 1) | st.integers(0, 70)
bigs = st.integers(0, 2**63 - 1) | st.integers(0, 5)
hashes = st.binary(min_size=32, max_size=32)
amounts = st.integers(0, 2**128 - 1).map(amount) | st.integers(0, 10**4).map(amount)
accounts = st.binary(min_size=20, max_size=20)
signatures = st.binary(min_size=65, max_size=65)
names = st.sampled_from(["fp32", ""]) | st.text(max_size=64)
# Port 1: whatever of the hosts resolves to this machine, nobody listens there.
odd_hosts = ["..", "a..b", "a" * 64, "nul\0byte", "\u2488.com", "xn--\xad", "127.0.0.1", "::1", "0"]
hosts = st.sampled_from(odd_hosts) | st.text(min_size=1, max_size=255)
endpoints = st.builds(Endpoint, accounts, hosts, st.just(1), hashes, st.text(max_size=128))
tensors = st.builds(
    Tensor,
    st.sampled_from(["float32", "float16", "bfloat16"]),
    st.lists(st.integers(1, 6), min_size=1, max_size=4)
    | st.tuples(st.just(1), st.integers(1, 3), st.just(4)).map(list),
)
sessions = st.sampled_from(SESSIONS) | st.binary(min_size=16, max_size=16)
branches = st.builds(messages.Branch, counts, st.lists(st.tuples(hashes, amounts), max_size=3))
errors = st.dictionaries(st.text(max_size=8), st.none() | st.integers(0, 9) | st.text(max_size=9), max_size=3)
known_errors = st.fixed_dictionaries({"code": st.sampled_from(["Draining", "x"]), "message": st.text(max_size=9)})

ANY_MESSAGE = st.one_of(
    st.builds(
        messages.Open,
        sessions,
        st.just(MODEL) | hashes,
        counts | st.just(0),
        counts | st.just(2),
        st.integers(1, 1024),
        st.integers(1, 2**24),
        st.sampled_from(["float32", "bfloat16", "int8", ""]),
        st.integers(1, 4096),
        st.just(amount(PRICE)) | amounts,
        hashes,
        amounts,
        branches,
        hashes,
        st.none() | accounts,
        st.none() | endpoints,
    ),
    st.builds(
        messages.Step,
        sessions,
        bigs,
        counts,
        tensors,
        counts,
        counts,
        st.booleans(),
        st.none() | st.lists(counts, max_size=3),
    ),
    st.builds(messages.Rewire, sessions, st.none() | endpoints, counts, st.none() | accounts),
    st.builds(messages.Pay, hashes, amounts, hashes, signatures),
    st.builds(messages.AskOpening, hashes, st.lists(counts, max_size=4), st.booleans(), st.booleans()),
    st.builds(messages.Opening, hashes, st.lists(st.lists(hashes, max_size=3), max_size=3), tensors),
    st.builds(
        messages.AskPossession,
        hashes | st.just(bytes(MODEL)),
        hashes,
        st.lists(st.tuples(counts | st.integers(0, 3), counts | st.integers(0, 4)), min_size=1, max_size=5),
    ),
    st.builds(messages.Possession, hashes, st.lists(hashes, max_size=3)),
    st.builds(messages.Close, sessions),
    st.builds(messages.Ask),
    st.builds(messages.AskReceipts, bigs, hashes),
    st.builds(messages.AskNamed, st.lists(hashes, max_size=4)),
    st.builds(messages.Receipts, st.just([]), st.booleans()),
    st.builds(messages.Fault, errors | known_errors, st.none() | sessions, st.none() | bigs),
    st.builds(messages.Closed, sessions),
    st.builds(messages.Ping, bigs),
    st.builds(messages.Rewired, sessions),
    st.builds(messages.Result, sessions, bigs, counts, st.none() | tensors),
    st.builds(messages.Opened, sessions, hashes, names, amounts, amounts),
    st.builds(messages.Paid, hashes, amounts),
    st.builds(messages.Pong, bigs),
    st.builds(messages.Info, hashes, counts, counts, amounts, counts, counts, bigs, bigs, bigs, st.booleans()),
    st.builds(messages.Receipt, signed_receipts(sessions=sessions, models=st.just(MODEL) | hashes)),
)


class Deaf:
    def on_message(self, conn: Link, message: messages.AnyMessage, payload: memoryview) -> None: ...

    def on_lost(self, conn: Link, error: NetworkError | None) -> None: ...


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sent=st.lists(st.tuples(ANY_MESSAGE, st.booleans(), st.integers(0, 2**32)), min_size=1, max_size=25),
)
def test_no_message_harms_the_node_or_anyone_else(sent: list[tuple[Any, bool, int]]) -> None:
    asyncio.run(bombard(sent))


async def real_dial(endpoint: Endpoint, /, *, handler: LinkHandler) -> Link:
    """What a node dials with, real name resolution included."""
    return await dial(endpoint, identity=signer("a"), handler=handler, timeout=0.2)


@settings(max_examples=40, deadline=None)
@given(endpoint=endpoints)
@example(endpoint=Endpoint(b"\1" * 20, "..", 1, bytes(32), ""))
def test_a_dialed_stranger_is_unreachable_whatever_its_host_is_called(endpoint: Endpoint) -> None:
    async def scenario() -> None:
        with pytest.raises((PeerUnreachable, PeerTimeout)):
            await real_dial(endpoint, handler=Deaf())

    asyncio.run(scenario())


@settings(max_examples=25, deadline=None)
@given(endpoint=endpoints, rewired=st.booleans())
@example(endpoint=Endpoint(b"\1" * 20, "..", 1, bytes(32), ""), rewired=True)
@example(endpoint=Endpoint(b"\1" * 20, "a" * 64, 1, bytes(32), ""), rewired=False)
def test_no_next_node_a_client_makes_up_ends_the_node(endpoint: Endpoint, rewired: bool) -> None:
    async def scenario() -> None:
        world, x = World(dialer=real_dial), inputs(1)
        async with running_node(world, "a", A) as a:
            client, bystander = FakeClient(world, [a]), FakeClient(world, [a], name="bystander")
            await bystander.open()
            if rewired:
                await client.open()
                client.pipes[0].send(messages.Rewire(client.session, endpoint, 0))
            else:
                client.pipes[0].send(client.open_message(0, downstream=endpoint))
            error, _ = await client.expect_fault()
            assert (type(error), error.message) == (PeerUnreachable, "the next node cannot be reached")
            bystander.pay(10_000)
            bystander.step(1, 0, x)
            assert torch.equal(await bystander.result(), expected([A], x))

    asyncio.run(scenario())


async def bombard(sent: list[tuple[Any, bool, int]]) -> None:
    """An owner with an open session and a stranger send the messages; a bystander's session must go on."""
    world, x = World(dialer=real_dial), inputs(3)
    async with running_node(world, "a", A) as a:
        bystander = FakeClient(world, [a], name="bystander")
        owner = FakeClient(world, [a], name="owner")
        stranger = FakeClient(world, [a], name="stranger")
        owner.session = SESSIONS[0]
        for client in (bystander, owner):
            await client.open()
        bystander.pay(10_000)
        bystander.step(1, 0, x[:, :2])
        await bystander.result()
        for message, as_owner, noise in sent:
            # Through the codec, as anything a peer can send has come.
            kind = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=messages.AnyMessage)
            payload = torch.randint(0, 256, (payload_bytes(kind),), generator=torch.Generator().manual_seed(noise))
            pipe = (owner if as_owner else stranger).pipes[0]
            pipe.send(kind, payload.to(torch.uint8).numpy().tobytes())
        bystander.step(2, 2, x[:, 2:])
        assert torch.equal(await bystander.result(), expected([A], x)[:, 2:])
        for client in (owner, stranger):
            for _, answer, _ in client.received:
                if isinstance(answer, Fault):
                    error = from_wire(answer.error)
                    assert isinstance(error, CorollaError)
                    assert "could not be handled" not in str(error)
                    assert "malformed error" not in str(error)
        assert not [pipe for pipe in world.pipes if pipe.peer == a.account and pipe.closed]
    await until(lambda: a.kv.used == 0)
    assert a.desk.inbox.used == 0


def test_a_fault_from_a_peer_that_is_not_the_next_node_changes_nothing() -> None:
    async def scenario() -> None:
        world, x = World(), inputs(1)
        async with running_node(world, "a", A) as a:
            owner, stranger = FakeClient(world, [a]), FakeClient(world, [a], name="stranger")
            await owner.open()
            owner.pay(10_000)
            stranger.pipes[0].send(Fault({"code": "Draining", "message": "", "data": {}}, owner.session, 1))
            owner.step(1, 0, x)
            assert torch.equal(await owner.result(), expected([A], x))

    asyncio.run(scenario())


@pytest.mark.parametrize("raw", [None, 7, [], {"code": 5}, {"code": "OutOfCapacity", "message": "m", "data": []}])
def test_an_error_that_is_none_is_the_peers_misbehaviour(raw: object) -> None:
    assert isinstance(from_wire(raw), PeerMisbehaved)
