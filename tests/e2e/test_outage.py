"""The chain goes away in mid-session, nodes crash before they redeemed: no promise is lost, none is paid twice."""

from __future__ import annotations

import asyncio
import time

import pytest
from marketplace import books_of, buyer, eventually, expect, greedy, question, serving

from corolla.devnet.devnet import DEFAULT_PRICE, Devnet
from corolla.devnet.reference import Reference
from corolla_core.chain.escrow import Escrow

pytestmark = pytest.mark.anyio

OUTAGE = 30.0
PER_TOKEN = DEFAULT_PRICE * 10


async def test_an_rpc_down_for_30_seconds_in_mid_session_loses_nothing(
    devnet: Devnet, escrow: Escrow, reference: Reference
) -> None:
    prompt = question("In one sentence, why is the sky blue?")
    expected = expect(reference, prompt, 24)
    async with buyer(devnet) as customer, customer.client.session(capacity=512) as chat:
        stream = chat.stream(prompt[0]["content"], greedy(24))
        turns = 1
        async for _ in stream:
            if devnet.chain.running:
                await devnet.chain.kill()
                down_since = time.monotonic()
        first = stream.generation
        try:
            # Sentence after sentence, paid for with vouchers nobody can redeem yet.
            while time.monotonic() < down_since + OUTAGE - 4:
                await chat.send("Go on.", greedy(8))
                turns += 1
            await asyncio.sleep(max(0.0, down_since + OUTAGE - time.monotonic()))
        finally:
            await devnet.chain.start()
        await chat.send("And now?", greedy(8))
    assert first.token_ids == expected.token_ids
    assert turns > 1, "the session went on while the chain was down"

    signed = await customer.signed()
    assert len([amount for amount in signed.values() if amount]) == 3

    async def redeemed() -> bool:
        claimed = await customer.claimed(escrow)
        return all(claimed[account] == amount for account, amount in signed.items())

    await eventually(redeemed, within=60, what="every voucher of the outage is redeemed to the last unit")


@pytest.mark.parametrize("third", [1])
async def test_a_killed_node_redeems_after_its_restart_what_it_could_not_before(
    devnet: Devnet, escrow: Escrow, third: int
) -> None:
    async with buyer(devnet) as customer, customer.client.session(capacity=256) as chat:
        await chat.send("Hello.", greedy(8))
        node = await serving(devnet, third)
        await devnet.chain.kill()
        try:
            await chat.send("Tell me about flowers.", greedy(16))
            await asyncio.sleep(0.5)
            await node.kill()
        finally:
            await devnet.chain.start()
    [tranche] = await customer.tranches(escrow)
    charged, promised = await books_of(node, tranche)
    before = await escrow.claimed(tranche, node.account)
    assert before < promised, "the kill came before the redemption"
    assert charged >= promised - PER_TOKEN * 8

    await node.start()

    async def redeemed() -> bool:
        return await escrow.claimed(tranche, node.account) == promised

    await eventually(redeemed, within=30, what="the restarted node redeems")
    await node.kill()
    await node.start()
    await asyncio.sleep(3)
    assert await escrow.claimed(tranche, node.account) == promised, "a second restart redeems nothing twice"
