"""A node that is honest only to accounts it can connect with a validator is caught by a probe, and would not be by a
probe that the staked account had paid for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from ganache import Ganache
from test_validator_rounds import CHEAT, SPAN, World, checkpoint, inputs, manifest, session, world

from corolla_core.chain.deploy import Terms, deploy_all
from corolla_core.chain.disputes import Disputes
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.ids import Address, SessionId, address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import ONE_NECTAR, Nectar, Wei
from corolla_validator.probe_purse import ChainPurse
from corolla_validator.rounds import Plan

__all__ = ["checkpoint", "manifest", "world"]
pytestmark = pytest.mark.anyio
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
GAS = Wei(10**16)


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=Terms(), name="test"))


class Nose:
    """What a cheat can find out on the chain: whether an account stakes as a juror, or got money from one that does."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    async def smells(self, account: Address) -> bool:
        return any([await self._stakes(each) for each in {account, *await self._payers(account)}])

    async def _stakes(self, account: Address) -> bool:
        pool = await Disputes(self._chain).pool()
        return (await pool.juror(account)).joined

    async def _payers(self, account: Address) -> set[Address]:
        topic = "0x" + account.removeprefix("0x").lower().rjust(64, "0")
        query = {"fromBlock": "0x0", "address": self._chain.network.token, "topics": [TRANSFER, None, topic]}
        logs: Any = await self._chain.request("eth_getLogs", query)
        found = {address("0x" + log["topics"][1][-40:]) for log in logs}
        for number in range(await self._chain.block_number() + 1):
            block: Any = await self._chain.request("eth_getBlockByNumber", hex(number), True)
            found |= {address(t["from"]) for t in block["transactions"] if str(t.get("to")).lower() == account.lower()}
        return found


class Accounts:
    """A validator that stakes, its purse, and a probe that each of them paid for."""

    def __init__(self, chain: Chain, ganache: Ganache) -> None:
        self.chain = chain
        self.owner, self.validator, self.purse = ganache.accounts[:3]
        self.probe = Signer(b"\x51" * 32)
        self.careless = Signer(b"\x52" * 32)

    async def set_up(self) -> None:
        mint = Token(self.chain, TransactionSender(self.chain, self.owner))
        for signer in (self.validator, self.purse):
            await mint.mint(signer.address, Nectar(500 * ONE_NECTAR))
        sender = TransactionSender(self.chain, self.validator)
        await (await Disputes(self.chain, sender).pool()).join(self.validator.address, Nectar(100 * ONE_NECTAR))
        purse = ChainPurse(self.chain, self.purse, staked=self.validator.address, gas=GAS)
        assert await purse.holds(ONE_NECTAR)
        assert not await purse.holds(Nectar(501 * ONE_NECTAR))
        await purse.give(self.probe.address, ONE_NECTAR)
        await Token(self.chain, sender).transfer(self.careless.address, ONE_NECTAR)


@pytest.fixture
async def accounts(network: Network, ganache: Ganache) -> AsyncIterator[Accounts]:
    snapshot = ganache.snapshot()
    async with await Chain.connect(network) as chain:
        made = Accounts(chain, ganache)
        await made.set_up()
        yield made
    ganache.revert(snapshot)


async def test_a_probe_has_its_money_and_gas_and_smells_of_nobody(accounts: Accounts) -> None:
    chain, nose = accounts.chain, Nose(accounts.chain)
    assert await Token(chain).balance_of(accounts.probe.address) == ONE_NECTAR
    assert await chain.balance(accounts.probe.address) == GAS
    assert not await nose.smells(accounts.probe.address)
    assert await nose.smells(accounts.validator.address)
    assert await nose.smells(accounts.careless.address)


async def test_a_cheat_that_is_honest_to_who_smells_of_a_validator_is_caught_by_a_probe(
    accounts: Accounts, world: World, tmp_path: Path
) -> None:
    nose = Nose(accounts.chain)
    sessions = {}
    for seed, payer in enumerate((accounts.probe.address, accounts.careless.address)):
        compute = world.honest if await nose.smells(payer) else world.skips
        made = session(
            CHEAT, world.manifest, SPAN, inputs(seed), compute, name=payer, t_out=int(world.swarm.now * 1000)
        )
        world.swarm.entries[CHEAT.address] += made
        sessions[payer] = SessionId(made[0].receipt.session_id)
    world.new_rounds(Plan(probability=world.rounds.plan.probability * 0, quiet=2.0))
    await world.pass_rounds()
    assert world.outcomes() == []  # no beacon drew them
    assert await world.rounds.audit_session(sessions[accounts.careless.address]) == []
    assert world.outcomes() == [(CHEAT.address, "passed")]
    world.swarm.now += 1  # audits of one second have no order
    assert await world.rounds.audit_session(sessions[accounts.probe.address]) == []
    assert world.outcomes()[-1] == (CHEAT.address, "failed")
    assert await world.rounds.audit_session(sessions[accounts.probe.address]) == []  # judged once
    assert len(world.outcomes()) == 2


async def test_of_a_session_that_a_node_does_not_open_something_is_left(world: World) -> None:
    world.new_rounds(Plan(probability=world.rounds.plan.probability * 0, quiet=2.0))
    world.serve("cheat", "c1", 1)
    world.serve("honest", "h1", 2)
    await world.pass_rounds(3)
    mine = SessionId(world.swarm.entries[CHEAT.address][0].receipt.session_id)
    world.swarm.refusing.add(CHEAT.address)
    assert await world.rounds.audit_session(mine) == [CHEAT.address]
    world.swarm.refusing.clear()
    assert await world.rounds.audit_session(mine) == []
    assert world.outcomes() == [(CHEAT.address, "failed")]
