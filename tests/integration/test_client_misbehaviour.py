"""Nodes that lie, overcharge, stall or send rubbish are replaced, and the text is what it would have been."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace as replace_field
from pathlib import Path
from typing import Any

import pytest
from client_world import BLOCKS, ClientWorld, client_world, fast_policy, greedy_ids, make_checkpoint
from msgspec.structs import replace
from node_peers import PRICE, FakeNode, signer

from corolla.values import Generation
from corolla.wallet import WalletPolicy
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import NoRoute, SpendingLimitExceeded, VoucherTooSmall, to_wire
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.receipt import WireDtype
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.messages import Fault, Opened, Pay, Receipt, Result, Rewired, Step, Tensor, amount

pytestmark = pytest.mark.anyio
SPANS = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
STANDBYS = {"a2": Span(0, 2), "b2": Span(2, 4), "c2": Span(4, 6)}
PROMPT = "The capital of France is"
TOKENS = 16

Change = Callable[[Any, memoryview], tuple[Any, Any] | None]
"""What a liar sends instead of a message and its payload; None: nothing."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(checkpoint: Checkpoint) -> tuple[int, ...]:
    return greedy_ids(checkpoint, list(checkpoint.tokenizer()(PROMPT).input_ids), TOKENS)


def corrupt(node: FakeNode, kind: type[Any], change: Change, *, after: int = 0) -> None:
    """Make a node's messages of a kind pass through `change`, the first `after` of them excepted."""
    seen = 0
    honest = node.server.on_message

    def on_message(conn: Any, message: Any, payload: memoryview) -> None:
        if not hasattr(conn, "lies"):
            conn.lies = True
            send = conn.send

            def lie(outgoing: Any, data: Any = None) -> None:
                nonlocal seen
                if isinstance(outgoing, kind):
                    seen += 1
                    if seen > after:
                        changed = change(outgoing, data)
                        if changed is None:
                            return
                        outgoing, data = changed
                send(outgoing, data)

            conn.send = lie
        honest(conn, message, payload)

    node.server.on_message = on_message  # type: ignore[method-assign]


async def generate(world: ClientWorld) -> Generation:
    for name in SPANS:
        world.directory.throughput[world.nodes[name].account] = 1_000_000
    return await world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS)).read()


def with_nan(message: Any, payload: Any) -> tuple[Any, Any]:
    return message, memoryview(b"\x00\x00\xc0\x7f" * (len(payload) // 4))


def of_another_shape(message: Any, payload: Any) -> tuple[Any, Any]:
    shape = [1, 1, len(payload) // 8]
    return replace(message, tensor=Tensor("float32", shape)), memoryview(payload)[: len(payload) // 2]


def of_another_position(message: Any, payload: Any) -> tuple[Any, Any]:
    return replace(message, pos=message.pos + 1), payload


def without_tensor(message: Any, payload: Any) -> tuple[Any, Any]:
    return replace(message, tensor=None), None


@pytest.mark.parametrize("lie", [with_nan, of_another_shape, of_another_position, without_tensor])
async def test_a_useless_result_gets_the_last_node_replaced(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, lie: Change
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        corrupt(world.nodes["c"], Result, lie, after=3)
        made = await generate(world)
        assert made.token_ids == undisturbed
        assert made.route[-1].account == world.nodes["c2"].account
        assert world.peers.shunned(world.nodes["c"].account)


async def test_a_demand_for_more_than_is_owed_gets_the_node_replaced_and_nothing_more_paid(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    def extort(message: Any, payload: Any) -> tuple[Any, Any]:
        error = VoucherTooSmall(owed=10**9, offered=0)
        return Fault(to_wire(error), message.session, message.step), None

    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        corrupt(world.nodes["c"], Result, extort, after=3)
        made = await generate(world)
        assert made.token_ids == undisturbed
        assert world.paid("c") <= (len(PROMPT) + 4) * 2 * PRICE


@pytest.mark.parametrize("field", ["paid", "weight_root"])
async def test_a_lie_in_opening_a_session_gets_another_node_chosen(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, field: str
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        value = amount(5) if field == "paid" else b"x" * 32
        corrupt(world.nodes["b"], Opened, lambda m, p: (replace(m, **{field: value}), p))
        corrupt(world.nodes["b2"], Opened, lambda m, p: (m, p))
        if field == "weight_root":
            honest = {span: _root(world, span) for span in SPANS.values()}
            world.engine._weight_root = lambda span: honest[span]
        made = await generate(world)
        assert made.token_ids == undisturbed
        assert made.route[1].account == world.nodes["b2"].account


def _root(world: ClientWorld, span: Span) -> Any:
    node = next(n for n in world.nodes.values() if n.blocks.span == span)
    return node.server._offer.weight_root(span)


@pytest.mark.parametrize("field", ["n_pos", "out_root", "signature", "prev_receipt_hash", "client_nonce"])
async def test_a_false_receipt_gets_the_node_replaced(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, field: str
) -> None:
    def falsify(message: Any, payload: Any) -> tuple[Any, Any]:
        signed, receipt = message.signed, message.signed.receipt
        if field == "signature":
            return Receipt(replace_field(signed, signature=bytes(65))), payload
        value = receipt.n_pos + 1 if field == "n_pos" else bytes(32)
        return Receipt(replace_field(signed, receipt=replace_field(receipt, **{field: value}))), payload

    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        corrupt(world.nodes["b"], Receipt, falsify, after=1)
        made = await generate(world)
        assert made.token_ids == undisturbed
        assert made.route[1].account == world.nodes["b2"].account


@pytest.mark.parametrize(
    "lie",
    [
        {"wire": WireDtype.BFLOAT16},
        {"batch": 2},
        {"order_root": Hash32(b"x" * 32)},
        {"t_in": 0},
        {"t_in": 0, "t_out": 0},
    ],
    ids=lambda lie: " and ".join(lie),
)
async def test_a_receipt_signed_for_another_layout_or_time_gets_the_node_replaced(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, lie: dict[str, Any]
) -> None:
    def signs(message: Any, payload: Any) -> tuple[Any, Any]:
        return Receipt(replace_field(message.signed.receipt, **lie).sign(signer("b"))), payload

    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        assert signer("b").address == world.nodes["b"].account
        corrupt(world.nodes["b"], Receipt, signs)
        made = await generate(world)
        assert made.token_ids == undisturbed
        assert made.route[1].account == world.nodes["b2"].account


async def test_a_node_that_stalls_is_replaced_in_the_end(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    policy = fast_policy(step=0.5, step_per_token=0.0)
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS, policy=policy) as world:
        corrupt(world.nodes["c"], Result, lambda m, p: None, after=3)
        made = await generate(world)
        assert made.token_ids == undisturbed


async def test_a_node_that_never_answers_open_is_passed_over(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS, policy=fast_policy(answer=0.3)) as world:
        corrupt(world.nodes["b"], Opened, lambda m, p: None)
        made = await generate(world)
        assert made.token_ids == undisturbed


async def test_a_node_that_never_answers_rewire_is_replaced_too(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    policy = fast_policy(answer=0.3, step_per_token=0.001)
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS, policy=policy) as world:
        corrupt(world.nodes["a"], Rewired, lambda m, p: None)
        corrupt(world.nodes["c"], Result, with_nan, after=3)
        corrupt(world.nodes["b"], Rewired, lambda m, p: None)
        made = await generate(world)
        assert made.token_ids == undisturbed


async def test_a_voucher_lost_on_the_way_is_sent_again(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        node, lost = world.nodes["b"], []
        honest = node.server.on_message

        def deaf_once(conn: Any, message: Any, payload: memoryview) -> None:
            if isinstance(message, Pay) and len(lost) < 2:
                lost.append(message)
                return
            honest(conn, message, payload)

        node.server.on_message = deaf_once  # type: ignore[method-assign]
        made = await generate(world)
        assert made.token_ids == undisturbed
        assert len(lost) == 2
        assert made.usage.failovers == 0
        assert world.paid("b") == world.charged("b")


async def test_a_standby_is_not_paid_beyond_the_spending_limit(checkpoint: Checkpoint, tmp_path: Path) -> None:
    limit = (len(PROMPT) + TOKENS) * BLOCKS * PRICE  # exactly one undisturbed text
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS, wallet=WalletPolicy(limit=Nectar(limit))) as world:
        for name in SPANS:
            world.directory.throughput[world.nodes[name].account] = 1_000_000
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
        await anext(stream)
        world.kill("b")
        with pytest.raises(SpendingLimitExceeded):
            await stream.read()
        promised = sum(world.paid(name) for name in (*SPANS, *STANDBYS))
        assert promised <= limit


async def test_when_every_node_of_a_span_lies_the_client_gives_up_with_a_typed_error(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        for name in ("c", "c2"):
            corrupt(world.nodes[name], Result, with_nan)
        with pytest.raises(NoRoute) as caught:
            await generate(world)
        assert caught.value.missing == [4, 5]


async def test_a_middle_node_that_forwards_rubbish_is_replaced(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        target, count = world.nodes["c"], 0
        honest = target.server.on_message

        def poisoned(conn: Any, message: Any, payload: memoryview) -> None:
            nonlocal count
            if isinstance(message, Step) and conn.peer == world.nodes["b"].account:
                count += 1
                if count > 3:
                    payload = memoryview(b"\x00\x00\xc0\x7f" * (len(payload) // 4))
            honest(conn, message, payload)

        target.server.on_message = poisoned  # type: ignore[method-assign]
        made = await generate(world)
        assert made.token_ids == undisturbed
        assert made.route[1].account == world.nodes["b2"].account
        await asyncio.sleep(0)
