"""Money all the way round, on a chain whose clock the test moves: pay, redeem, withdraw, unstake, reclaim."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from conftest import SETTINGS, TERMS
from marketplace import DEPOSIT, CommandRefused, buyer, eventually, greedy, node_command, positions, question

from corolla.devnet.devnet import DEFAULT_PRICE, Devnet, DevnetPlan
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.token import Token
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import nectar_from_text, nectar_to_text

pytestmark = pytest.mark.anyio

DAY = 24 * 3600


@pytest.fixture
async def lone(checkpoint: Path, tmp_path: Path) -> AsyncIterator[Devnet]:
    """A devnet of one node that serves the whole model."""
    plan = DevnetPlan(model=str(checkpoint), spans=(Span(0, 30),), terms=TERMS, settings=SETTINGS)
    async with Devnet(plan, home=tmp_path) as devnet:
        yield devnet


async def test_money_goes_round_and_adds_up(lone: Devnet) -> None:
    [node] = lone.nodes
    async with await Chain.connect(lone.network) as chain:
        escrow, token, registry = Escrow(chain), Token(chain), Registry(chain)
        stake = (await registry.node(node.account)).stake
        assert stake == await registry.min_stake()
        wallet = await token.balance_of(node.account)

        async with buyer(lone) as customer:
            answer = await customer.client.generate(question("Hello."), greedy(12))
            cost = answer.usage.cost
            assert cost == positions(answer) * DEFAULT_PRICE * 30

            async def redeemed() -> bool:
                return sum((await customer.claimed(escrow)).values()) == cost

            await eventually(redeemed, within=20, what="the node redeems")
            fee = cost * TERMS.fee_bps // 10_000
            assert await escrow.payee_balance(node.account) == cost - fee

            earnings = await node_command(node, lone, "earnings")
            assert nectar_from_text(earnings["earned"]) == cost
            assert nectar_from_text(earnings["withdrawable"]) == cost - fee
            await node_command(node, lone, "withdraw")
            assert await escrow.payee_balance(node.account) == 0
            assert await token.balance_of(node.account) == wallet + cost - fee

            taken = await customer.client.withdraw()
            balance = await customer.client.balance()
            assert balance.free == 0
            assert taken + balance.locked + cost == DEPOSIT

            await unstake_everything(lone, registry, token)

            await lone.chain.advance(2 * DAY)
            reclaimed = await customer.client.reclaim()
            assert sum(reclaimed.values()) == balance.locked
            await customer.client.withdraw()
            end = await customer.client.balance()
            assert (end.locked, end.free) == (0, 0)
            assert end.wallet == balance.wallet + balance.locked

        held = await token.balance_of(escrow.address)
        assert held == fee, "the escrow holds nothing but the fee that waits to be burned"


async def unstake_everything(devnet: Devnet, registry: Registry, token: Token) -> None:
    """As the operator does: stop the node, unstake, wait out the delay, collect."""
    [node] = devnet.nodes
    stake = (await registry.node(node.account)).stake
    await node.stop()
    begun = await node_command(node, devnet, "unstake", "all", "--yes")
    assert begun["unbonding"] == nectar_to_text(stake)
    assert begun["active"] is False
    before = await token.balance_of(node.account)
    with pytest.raises(CommandRefused, match="StillUnbonding"):
        await node_command(node, devnet, "unstake", "--finish")
    await devnet.chain.advance(TERMS.unbonding_delay + TERMS.audit_window + 1)
    await node_command(node, devnet, "unstake", "--finish")
    assert await token.balance_of(node.account) == before + stake
    assert (await registry.node(node.account)).stake == 0
