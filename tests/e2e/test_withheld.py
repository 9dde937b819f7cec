"""A node serves, is paid, and shows its rows to nobody: a validator asks on chain, and it pays for its silence."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from marketplace import buyer, eventually, greedy, question

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.node import DevnetNode
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.faults import Faults
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.token import Token
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import nectar_from_text
from corolla_core.store.kept_rows import RowIndex
from corolla_core.store.node_store import NodeStore
from corolla_core.store.store import Store

pytestmark = pytest.mark.anyio

LIAR = str(Path(__file__).with_name("liar.py"))


@pytest.fixture(scope="module")
async def devnet(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    plan = DevnetPlan(
        model=str(checkpoint),
        spans=(Span(0, 10), Span(10, 20), Span(20, 30)),
        settings={"redeem_interval": 2.0},
        programs={"node-1": (sys.executable, LIAR, "withhold")},
        validators=1,
    )
    async with Devnet(plan, home=tmp_path_factory.mktemp("withheld")) as devnet:
        yield devnet


async def test_who_opens_nothing_is_jailed_and_five_percent_poorer(devnet: Devnet) -> None:
    (validator,) = devnet.validators
    withholder = devnet.nodes[1].account
    honest = [node.account for node in devnet.nodes if node.account != withholder]
    async with await Chain.connect(devnet.network) as chain:
        registry, token = Registry(chain), Token(chain)
        stakes = {node.account: (await registry.node(node.account)).stake for node in devnet.nodes}
        purse = await token.balance_of(validator.account)
        async with buyer(devnet) as customer:
            await customer.client.generate(question("Name three flowers and say what they smell of."), greedy(16))

        async def punished() -> bool:
            return bool(validator.events("punished"))

        await eventually(punished, within=150, what="the withholding node is punished")
        (challenged,) = validator.events("challenged")
        (event,) = validator.events("punished")
        assert challenged["node"] == event["node"] == withholder
        record = await registry.node(withholder)
        taken = stakes[withholder] - record.stake
        assert taken == stakes[withholder] * 5 // 100
        assert not record.active
        reward = taken * (await Faults(chain).parameters()).reward_bps // 10_000
        assert (nectar_from_text(event["taken"]), nectar_from_text(event["reward"])) == (taken, reward)
        assert await token.balance_of(validator.account) == purse + reward  # and its bond

        for node in (devnet.nodes[0], devnet.nodes[2]):
            await redeemed_what_it_can_open(node, Escrow(chain))
        for account in honest:
            assert (await registry.node(account)).stake == stakes[account]
            assert await registry.is_active(account)
        assert {audit["node"]: audit["outcome"] for audit in validator.events("audit")} == dict.fromkeys(
            honest, "passed"
        )


async def redeemed_what_it_can_open(node: DevnetNode, escrow: Escrow) -> None:
    """The head on chain is a receipt of the node's own, and its rows lie on its disk."""
    async with await asyncio.to_thread(Store.open, node.home / "node" / "books.db") as store:
        books, rows = NodeStore(store), RowIndex(store)
        (kept,) = await store.run(lambda: books.best_vouchers(unredeemed_only=False))
        head = await escrow.receipt_head(kept.signed.voucher.tranche_id, node.account)
        signed = await store.run(books.receipt, head)
        assert signed is not None
        assert signed.signer() == node.account
        assert await store.run(rows.place, head) is not None
