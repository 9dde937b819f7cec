"""Clients that share the nodes, clients that vanish, and clients that may not spend more."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from marketplace import books_of, buyer, eventually, expect, greedy, inspect, question
from vanisher import vanisher

from corolla.chat import ChatSession
from corolla.devnet.devnet import DEFAULT_PRICE, Devnet
from corolla.devnet.node import DevnetNode
from corolla.devnet.reference import Reference
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.errors import InsufficientFunds, SpendingLimitExceeded
from corolla_core.protocol.pricing import DEFAULT_CHUNK_TOKENS as CHUNK
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.voucher import tranche_id

pytestmark = pytest.mark.anyio

PER_TOKEN = DEFAULT_PRICE * 30
PROMPTS = ("In one sentence, why is the sky blue?", "Explain how rain forms, in two sentences.")


async def test_two_clients_at_once_each_get_their_own_text_and_their_own_bill(
    devnet: Devnet, escrow: Escrow, reference: Reference
) -> None:
    expected = [expect(reference, question(text), 20) for text in PROMPTS]
    async with buyer(devnet) as one, buyer(devnet) as two:
        answers = await asyncio.gather(
            *(each.client.generate(question(text), greedy(20)) for each, text in zip((one, two), PROMPTS, strict=True))
        )
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.token_ids == wanted.token_ids
        assert answer.usage.cost == (wanted.prompt_tokens + 20 - 1) * PER_TOKEN

    async def all_redeemed() -> bool:
        claimed = [sum((await each.claimed(escrow)).values()) for each in (one, two)]
        return claimed == [answer.usage.cost for answer in answers]

    await eventually(all_redeemed, within=30, what="both bills are redeemed to the last unit")


async def test_a_client_that_vanishes_leaves_no_memory_taken_and_no_debt_beyond_a_chunk(
    devnet: Devnet, chain: Chain, escrow: Escrow
) -> None:
    account = await devnet.new_account("vanisher")
    child = vanisher(devnet, account)
    try:
        await child.wait_event("tokens", 12, within=60)
        busy = [node for node in devnet.all_nodes if (await inspect(node, devnet)).sessions]
        assert len(busy) == 3
        os.killpg(child.pid, signal.SIGKILL)
    finally:
        await child.stop(grace=0.1)

    async def forgotten() -> bool:
        states = [await inspect(node, devnet) for node in devnet.all_nodes]
        return all(state.sessions == 0 and state.kv_free == state.kv_total for state in states)

    await eventually(forgotten, within=15, what="the nodes free what the client held")

    tranche = tranche_id(chain.chain_id, escrow.address, account.signer.address, 0)
    for node in busy:
        charged, promised = await books_of(node, tranche)
        assert charged - promised <= CHUNK * DEFAULT_PRICE * 10
        assert promised > 0

        async def redeemed(node: DevnetNode = node, promised: int = promised) -> bool:
            return await escrow.claimed(tranche, node.account) == promised

        await eventually(redeemed, within=15, what="the node redeems what the vanished client had promised")


async def test_the_spending_limit_stops_a_client_before_anything_is_signed(devnet: Devnet, escrow: Escrow) -> None:
    async with buyer(devnet, limit=Nectar(10 * PER_TOKEN)) as customer:
        with pytest.raises(SpendingLimitExceeded) as caught:
            await customer.client.generate(question(PROMPTS[0]), greedy(20))
        assert caught.value.limit == 10 * PER_TOKEN
        assert customer.client.spent == 0
    assert await customer.signed() == {}
    assert await customer.tranches(escrow) == []


async def ten_turns(chat: ChatSession) -> None:
    for _ in range(10):
        await chat.send(PROMPTS[1], greedy(16))


async def test_a_conversation_ends_where_its_limit_does(devnet: Devnet, escrow: Escrow) -> None:
    limit = Nectar(120 * PER_TOKEN)
    async with buyer(devnet, limit=limit) as customer:
        async with customer.client.session(capacity=64) as chat:
            await chat.send(PROMPTS[0], greedy(16))
            with pytest.raises(SpendingLimitExceeded):
                await ten_turns(chat)
        assert 0 < customer.client.spent <= limit
    signed = sum((await customer.signed()).values())
    assert 0 < signed <= limit

    async def redeemed() -> bool:
        return sum((await customer.claimed(escrow)).values()) == signed

    await eventually(redeemed, within=30, what="the nodes redeem what was signed and no more")


async def test_a_client_cannot_order_more_than_it_deposited(devnet: Devnet) -> None:
    async with buyer(devnet, deposit=Nectar(10 * PER_TOKEN)) as customer:
        with pytest.raises(InsufficientFunds) as caught:
            await customer.client.generate(question(PROMPTS[0]), greedy(20))
        assert caught.value.available == 10 * PER_TOKEN
        assert (await customer.client.balance()).free == 10 * PER_TOKEN
