"""Nodes die in mid-sentence; the sentence does not change, and nobody is paid twice."""

from __future__ import annotations

import time

import pytest
from marketplace import buyer, eventually, expect, greedy, question, serving

from corolla.devnet.devnet import DEFAULT_PRICE, Devnet
from corolla.devnet.reference import Reference
from corolla_core.chain.escrow import Escrow

pytestmark = pytest.mark.anyio

TOKENS = 40
KILL_AFTER = 14
PROMPT = question("Why do flowers have petals? Answer in three sentences.")
PER_TOKEN = DEFAULT_PRICE * 10


@pytest.mark.parametrize("third", [0, 1, 2])
async def test_killing_a_node_changes_no_token_and_pays_nobody_twice(
    devnet: Devnet, escrow: Escrow, reference: Reference, third: int
) -> None:
    expected = expect(reference, PROMPT, TOKENS)
    async with buyer(devnet) as customer:
        stream = customer.client.stream(PROMPT, greedy(TOKENS))
        seen, killed_at, gap = 0, 0.0, 0.0
        victim = devnet.nodes[third]
        async for piece in stream:
            seen += len(piece.token_ids)
            if killed_at and not gap and seen > KILL_AFTER + 1:  # one token may have been on its way already
                gap = time.monotonic() - killed_at
            if seen == KILL_AFTER:
                victim = await serving(devnet, third)
                await victim.kill()
                killed_at = time.monotonic()
        generation = stream.generation

    assert generation.token_ids == expected.token_ids
    assert generation.usage.failovers == 1
    assert gap < 10, "a dead peer is noticed by its closed connection, not by a timeout"

    # Every node that is in the route at the end has done each position exactly once, replayed or not.
    positions = expected.prompt_tokens + TOKENS - 1
    usage = {node.account: node for node in generation.usage.per_node}
    alive = [node for node in usage.values() if node.alive]
    assert len(alive) == 3
    assert victim.account not in {node.account for node in alive}
    assert [node.tokens for node in alive] == [positions] * 3
    assert usage[victim.account].tokens < positions

    await victim.start()
    signed = await customer.signed()
    for node in alive:
        assert signed[node.account] == positions * PER_TOKEN

    async def redeemed() -> bool:
        claimed = await customer.claimed(escrow)
        return all(claimed[node.account] == signed[node.account] for node in alive) and claimed[victim.account] > 0

    await eventually(redeemed, within=30, what="every node redeems what it was promised")
    claimed = await customer.claimed(escrow)
    # The last voucher may have been on its way to the victim when it died, or never been signed.
    assert 0 < claimed[victim.account] <= signed[victim.account] <= usage[victim.account].cost
    assert sum(signed.values()) <= generation.usage.cost
