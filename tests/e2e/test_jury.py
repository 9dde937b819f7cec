"""Five nodes, one of which lies: three validators find it out, a jury of them convicts it, and no one uses it again."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from marketplace import buyer, eventually, greedy, question

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla_core.chain.disputes import Disputes, Outcome
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.token import Token
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio

LIAR = str(Path(__file__).with_name("liar.py"))
THIRDS = (Span(0, 10), Span(10, 20), Span(20, 30))
PLACES = ("a garden", "a forest", "a desert", "a pond", "a cellar", "a roof", "a cave", "a cliff")


@pytest.fixture(scope="module")
async def court(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    plan = DevnetPlan(
        model=str(checkpoint),
        spans=THIRDS,
        standbys=THIRDS[:2],
        settings={"redeem_interval": 2.0},
        programs={"node-1": (sys.executable, LIAR, "skip")},
        validators=3,
    )
    async with Devnet(plan, home=tmp_path_factory.mktemp("court")) as devnet:
        yield devnet


async def test_a_liar_is_convicted_and_everyone_gets_what_is_theirs(court: Devnet) -> None:
    liar = court.nodes[1].account
    honest = [node.account for node in court.all_nodes if node.account != liar]
    async with await Chain.connect(court.network) as chain:
        registry, disputes, token = Registry(chain), Disputes(chain), Token(chain)
        stakes = {node.account: (await registry.node(node.account)).stake for node in court.all_nodes}
        purses = {validator.account: await token.balance_of(validator.account) for validator in court.validators}
        clients = [await serve(court, place) for place in PLACES]

        async def convicted() -> bool:
            if not await disputes.count():
                return False
            return (await disputes.dispute(1)).outcome is Outcome.FAULTY

        await eventually(convicted, within=150, what="the liar is convicted")
        dispute = await disputes.dispute(1)
        assert dispute.node == liar
        assert dispute.challenger in purses
        assert (await registry.node(liar)).stake < stakes[liar]
        assert not await registry.is_active(liar)
        for account in honest:
            assert (await registry.node(account)).stake == stakes[account]
            assert await registry.is_active(account)
        if dispute.harm:
            assert dispute.client in clients
            assert await disputes.credit(dispute.client) > 0

        async def paid() -> bool:
            return await token.balance_of(dispute.challenger) > purses[dispute.challenger]

        await eventually(paid, within=60, what="the challenger has its bond and its reward")
    async with buyer(court) as customer:
        again = await customer.client.generate(question("What grows on the moon?"), greedy(4))
    assert liar not in {hop.account for hop in again.route}
    for validator in court.validators:
        assert {event["node"] for event in validator.events("audit") if event["outcome"] == "failed"} <= {liar}


async def serve(devnet: Devnet, place: str) -> str:
    """One question; returns who asked it."""
    async with buyer(devnet) as customer:
        await customer.client.generate(question(f"What grows in {place}?"), greedy(8))
        return customer.account.signer.address
