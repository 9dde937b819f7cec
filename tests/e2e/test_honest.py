"""Whatever befalls honest nodes (killed, restarted, other threads, batches, vanished clients), nobody accuses them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from marketplace import buyer, eventually, greedy, question, serving
from vanisher import vanisher

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.node import DevnetNode
from corolla.policy import Policy
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.ids import ZERO_HASH
from corolla_core.protocol.span import Span
from corolla_core.store.node_store import NodeStore
from corolla_core.store.store import Store

pytestmark = pytest.mark.anyio

HALVES = (Span(0, 15), Span(15, 30))
TOKENS = 24


@pytest.fixture(scope="module")
async def devnet(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    """Two halves, a spare of each, all honest, and a validator that audits every session."""
    plan = DevnetPlan(
        model=str(checkpoint),
        spans=HALVES,
        standbys=HALVES,
        settings={"redeem_interval": 2.0, "orphan_grace": 3.0},
        validators=1,
    )
    async with Devnet(plan, home=tmp_path_factory.mktemp("honest")) as devnet:
        yield devnet


async def test_honest_nodes_are_never_accused(devnet: Devnet) -> None:
    (validator,) = devnet.validators
    async with await Chain.connect(devnet.network) as chain:
        registry = Registry(chain)
        stakes = {node.account: (await registry.node(node.account)).stake for node in devnet.all_nodes}
        killed = await killed_in_mid_sentence(devnet, "What grows in a garden?")
        await killed.start(threads=2)
        # Other chunks, and whoever replaces this one has other chunks and a history to replay.
        killed = await killed_in_mid_sentence(
            devnet, "What lives in a pond?", Policy(prefill_tokens=16, chunk_tokens=4)
        )
        await a_client_vanishes(devnet)
        await killed.start(threads=2)
        async with buyer(devnet) as one, buyer(devnet) as two:
            await asyncio.gather(
                *(each.client.generate(question("Why is the sky blue?"), greedy(TOKENS)) for each in (one, two))
            )
            expected = [key for node in devnet.all_nodes for key in await signed_by(node)]
            await one.client.beam_search(question("Why is grass green?"), SamplingParams(max_tokens=8), num_beams=2)

        async def all_audited() -> bool:
            return {(event["node"], event["session"]) for event in validator.events("audit")} >= set(expected)

        await eventually(all_audited, within=120, what="every session is audited at every node")
        assert len({session for _node, session in expected}) == 5
        outcomes = {event["outcome"] for event in validator.events("audit")}
        assert "passed" in outcomes
        assert outcomes <= {"passed", "undecided"}
        assert {event["standing"] for event in validator.events("audit")} == {"clear"}
        for kind in ("accused", "fault", "proven", "withheld"):
            assert validator.events(kind) == []
        for node in devnet.all_nodes:
            record = await registry.node(node.account)
            assert record.active
            assert record.stake == stakes[node.account]


async def killed_in_mid_sentence(devnet: Devnet, text: str, policy: Policy | None = None) -> DevnetNode:
    """Kills the node that serves the first half; the sentence goes on at the other one. Returns who was killed."""
    killed: DevnetNode | None = None
    seen = 0
    async with buyer(devnet, policy=policy) as customer:
        stream = customer.client.stream(question(text), greedy(TOKENS))
        async for piece in stream:
            seen += len(piece.token_ids)
            if killed is None and seen >= TOKENS // 2:
                killed = await serving(devnet, 0)
                await killed.kill()
    assert stream.generation.usage.failovers == 1
    assert killed is not None
    return killed


async def a_client_vanishes(devnet: Devnet) -> None:
    child = vanisher(devnet, await devnet.new_account("vanisher"))
    try:
        await child.wait_event("tokens", TOKENS, within=60)
        os.killpg(child.pid, signal.SIGKILL)
    finally:
        await child.stop(grace=0.1)


async def signed_by(node: DevnetNode) -> set[tuple[str, str]]:
    """The node and each session that it signed receipts for, by its books on disk."""
    store = await asyncio.to_thread(Store.open, node.home / "node" / "books.db")
    try:
        book = NodeStore(store)
        kept = await store.run(
            lambda: book.receipts_after(0, ZERO_HASH, before=2**63, limit=10_000, signer=node.account)
        )
        return {(node.account, signed.receipt.session_id.hex()) for signed in kept}
    finally:
        await store.aclose()
