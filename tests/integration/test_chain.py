"""The bindings, deployment and index against the real contracts on Ganache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path

import pytest
from eth_utils.crypto import keccak
from ganache import Ganache

from corolla_core.chain.abi import load_abi
from corolla_core.chain.deploy import Terms, deploy_all
from corolla_core.chain.escrow import Escrow, RedeemItem, Tranche
from corolla_core.chain.indexer import Indexed, Indexer
from corolla_core.chain.models import Models
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.state import NetworkState, fold
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import (
    ChainError,
    ConfigError,
    InvalidInput,
    TrancheUnknown,
    TransactionReverted,
    UnsupportedModel,
)
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, Hash32, ModelRoot, TrancheId
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime
from corolla_core.protocol.voucher import Voucher
from corolla_core.store.index_store import IndexStore
from corolla_core.store.store import Store

pytestmark = pytest.mark.anyio

TERMS = Terms(unbonding_delay=100, grace=50, audit_window=10, thaw_delay=20, fee_bps=100)
STAKE = Nectar(200 * ONE_NECTAR)


def coins(whole: int) -> Nectar:
    return Nectar(whole * ONE_NECTAR)


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=TERMS, name="test"))


class World:
    """A network seen by several accounts."""

    def __init__(self, chain: Chain, ganache: Ganache) -> None:
        self.chain, self.ganache = chain, ganache
        self.payer, self.node, self.other = ganache.accounts[1:4]

    def sender(self, signer: Signer) -> TransactionSender:
        return TransactionSender(self.chain, signer)

    def escrow(self, signer: Signer) -> Escrow:
        return Escrow(self.chain, self.sender(signer))

    def registry(self, signer: Signer) -> Registry:
        return Registry(self.chain, self.sender(signer))

    def token(self, signer: Signer) -> Token:
        return Token(self.chain, self.sender(signer))

    async def opened(self, tree: SumTree, *, lasts: int = 1000) -> Tranche:
        await self.escrow(self.payer).deposit(Nectar(tree.root.sum))
        return await self.escrow(self.payer).open_tranche(tree.root, UnixTime(await self.chain.now() + lasts))

    def item(self, tranche: Tranche, tree: SumTree, cumulative: int, *, by: Signer | None = None) -> RedeemItem:
        leaf = tree.leaves[0]
        voucher = Voucher(tranche.id, leaf.payee, Nectar(cumulative), Hash32(b"\x03" * 32))
        return RedeemItem(voucher.sign(self.chain.network.domain, by or self.payer), leaf, tree.proof(0))

    def tree(self, cap: int = 10 * ONE_NECTAR) -> SumTree:
        return SumTree([Leaf(self.node.address, Nectar(cap)), Leaf(self.other.address, coins(1))])


@pytest.fixture
async def world(network: Network, ganache: Ganache) -> AsyncIterator[World]:
    async with await Chain.connect(network) as chain:
        world = World(chain, ganache)
        mint = world.token(ganache.accounts[0])
        for account in (world.payer, world.node, world.other):
            if await mint.balance_of(account.address) < coins(1000):
                await mint.mint(account.address, coins(10_000))
        yield world


async def reason_of(work: Awaitable[object]) -> str:
    with pytest.raises(TransactionReverted) as error:
        await work
    return str(error.value.reason)


# ---- deployment ----


async def test_governance_of_a_deployed_network_is_the_timelocks(world: World, network: Network) -> None:
    deployer = world.ganache.accounts[0].address
    registry, escrow = load_abi("NodeRegistry"), load_abi("Escrow")
    read = world.chain.read
    admin, escrow_role = bytes(32), keccak(text="ESCROW_ROLE")
    assert await read(network.registry, registry, "hasRole", admin, network.timelock)
    assert not await read(network.registry, registry, "hasRole", admin, deployer)
    assert await read(network.registry, registry, "hasRole", escrow_role, network.escrow)
    assert await read(network.escrow, escrow, "owner") == network.timelock
    assert await read(network.token, load_abi("NectarToken"), "MINTER") == deployer
    parameters = await Escrow(world.chain).parameters()
    assert (parameters.fee_bps, parameters.grace, parameters.thaw_delay) == (100, 50, 20)
    assert (await Registry(world.chain).min_stake(), await Registry(world.chain).unbonding_delay()) == (coins(100), 100)


async def test_two_networks_can_live_on_one_chain(world: World, network: Network) -> None:
    other = await deploy_all(world.ganache.url, world.ganache.accounts[9], unbonding_delay=77)
    assert other.escrow != network.escrow
    async with await Chain.connect(other) as chain:
        assert await Registry(chain).unbonding_delay() == 77


async def test_reading_where_nothing_is_deployed_is_a_typed_error(world: World) -> None:
    nowhere = replace(world.chain.network, escrow=world.other.address)
    async with await Chain.connect(nowhere) as chain:
        with pytest.raises(ChainError, match="no Escrow"):
            await Escrow(chain).grace()


async def test_a_binding_without_a_sender_only_reads(world: World) -> None:
    with pytest.raises(ConfigError):
        await Escrow(world.chain).deposit(Nectar(1))


async def test_an_argument_that_does_not_fit_its_type_is_never_sent(world: World) -> None:
    with pytest.raises(InvalidInput):
        await world.token(world.payer).transfer(world.node.address, Nectar(-1))


# ---- token and registry ----


async def test_a_transfer_moves_tokens_and_says_why_it_cannot(world: World) -> None:
    token = world.token(world.payer)
    before = await token.balance_of(world.other.address)
    await token.transfer(world.other.address, Nectar(5))
    assert await token.balance_of(world.other.address) == before + 5
    reason = await reason_of(token.transfer(world.other.address, coins(10**6)))
    assert reason.startswith(f"ERC20InsufficientBalance(sender={world.payer.address}, balance=")
    assert await reason_of(token.mint(world.payer.address, Nectar(1))) == f"NotMinter(account={world.payer.address})"


async def test_a_node_registers_unstakes_waits_and_is_paid_back(world: World) -> None:
    node = world.ganache.accounts[7]
    await world.token(world.ganache.accounts[0]).mint(node.address, STAKE)
    registry = world.registry(node)
    assert not (await registry.node(node.address)).registered
    assert "StakeTooSmall" in await reason_of(registry.register(b"peer", node.address, Nectar(1)))
    await registry.register(b"peer-id", node.address, coins(150))
    await registry.add_stake(coins(50))
    record = await registry.node(node.address)
    assert (record.owner, record.peer_id, record.stake, record.active) == (node.address, b"peer-id", STAKE, True)
    await registry.begin_unstake(coins(120))
    record = await registry.node(node.address)
    assert (record.stake, record.unbonding, record.active) == (coins(80), coins(120), False)
    assert "StillUnbonding" in await reason_of(registry.withdraw_stake())
    world.ganache.advance(101)
    assert await registry.withdraw_stake() == coins(120)
    assert await world.token(node).balance_of(node.address) == coins(120)
    assert (await registry.node(node.address)).unbonding_at == 0
    assert not await registry.is_active(node.address)


async def test_stake_belongs_to_the_owner_not_to_the_node(world: World) -> None:
    node, owner = world.ganache.accounts[8], world.other
    await world.token(world.ganache.accounts[0]).mint(node.address, STAKE)
    await world.registry(node).register(b"p", owner.address, STAKE)
    assert "NotOwner" in await reason_of(world.registry(node).begin_unstake(coins(1)))
    await world.registry(owner).begin_unstake(coins(1), node=node.address)
    await world.registry(node).update_peer_id(b"q")
    assert (await Registry(world.chain).node(node.address)).peer_id == b"q"


# ---- models ----


async def test_a_published_model_is_found_by_name_until_deprecated(world: World) -> None:
    models = Models(world.chain, world.sender(world.payer))
    roots = [Hash32(bytes([n]) * 32) for n in range(1, 31)]
    first = await models.publish("smol", ModelRoot(b"\x01" * 32), roots, [NumericClass.FP32])
    second = await models.publish("smol", ModelRoot(b"\x02" * 32), roots[:2], [NumericClass.FP32, NumericClass.BF16])
    assert (first.version, list(first.block_roots)) == (1, roots)
    assert await models.latest("smol") == second
    assert second.numeric_classes == (NumericClass.FP32, NumericClass.BF16)
    await models.deprecate("smol", 2)
    assert await models.latest("smol") == first
    assert (await models.version("smol", 2)).deprecated
    with pytest.raises(UnsupportedModel):
        await models.latest("nothing")
    with pytest.raises(UnsupportedModel):
        await models.version("smol", 3)
    other = Models(world.chain, world.sender(world.other))
    assert "NotModelOwner" in await reason_of(
        other.publish("smol", ModelRoot(b"\x01" * 32), roots, [NumericClass.FP32])
    )


# ---- the life of a tranche ----


async def test_a_voucher_pays_its_payee_once_and_only_what_it_adds(world: World) -> None:
    tree, node = world.tree(), world.escrow(world.node)
    tranche = await world.opened(tree)
    assert (tranche.payer, tranche.signer, tranche.sum_node) == (world.payer.address, world.payer.address, tree.root)
    before = await node.payee_balance(world.node.address)
    first = await node.redeem([world.item(tranche, tree, 4 * ONE_NECTAR)])
    again = await node.redeem([world.item(tranche, tree, 4 * ONE_NECTAR), world.item(tranche, tree, 6 * ONE_NECTAR)])
    assert (first.paid, again.paid) == (coins(4) * 99 // 100, coins(2) * 99 // 100)
    assert [(r.amount, r.fee, r.cumulative) for r in again.items] == [(coins(2), coins(2) // 100, coins(6))]
    assert await node.claimed(tranche.id, world.node.address) == coins(6)
    assert (await node.tranche(tranche.id)).redeemed == coins(6)
    assert await node.payee_balance(world.node.address) == before + coins(6) * 99 // 100
    tokens = await world.token(world.node).balance_of(world.node.address)
    assert await node.withdraw_payee() == before + coins(6) * 99 // 100
    assert await world.token(world.node).balance_of(world.node.address) == tokens + before + coins(6) * 99 // 100
    assert "NothingToWithdraw" in await reason_of(node.withdraw_payee())


async def test_bad_vouchers_are_refused_with_the_contracts_reason(world: World) -> None:
    tree, node = world.tree(), world.escrow(world.node)
    tranche = await world.opened(tree)
    good = world.item(tranche, tree, ONE_NECTAR)
    assert "OverCap" in await reason_of(node.redeem([world.item(tranche, tree, 11 * ONE_NECTAR)]))
    assert "SignerNotAccepted" in await reason_of(node.redeem([world.item(tranche, tree, 1, by=world.other)]))
    assert "ProofInvalid" in await reason_of(node.redeem([replace(good, proof=tree.proof(1))]))
    assert "ProofInvalid" in await reason_of(node.redeem_gas([replace(good, leaf=Leaf(world.node.address, coins(11)))]))
    unknown = world.item(replace(tranche, id=TrancheId(bytes(32))), tree, 1)
    assert "TrancheUnknown" in await reason_of(node.redeem([unknown]))
    assert await node.claimed(tranche.id, world.node.address) == 0
    assert await node.redeem_gas([good]) > 50_000


async def test_the_rest_of_a_tranche_returns_after_expiry_and_grace(world: World) -> None:
    tree, payer = world.tree(), world.escrow(world.payer)
    tranche = await world.opened(tree, lasts=100)
    await world.escrow(world.node).redeem([world.item(tranche, tree, ONE_NECTAR)])
    assert "TrancheStillOpen" in await reason_of(payer.reclaim(tranche.id))
    assert tranche.closes_at == tranche.expiry + await payer.grace()
    world.ganache.advance(151)
    late = world.item(tranche, tree, 2 * ONE_NECTAR)
    assert "TrancheClosed" in await reason_of(world.escrow(world.node).redeem([late]))
    free = await payer.free_balance(world.payer.address)
    assert await payer.reclaim(tranche.id) == coins(10)
    assert await payer.free_balance(world.payer.address) == free + coins(10)
    await payer.withdraw_free(coins(10), to=world.other.address)
    assert "InsufficientFree(available=" in await reason_of(payer.withdraw_free(coins(10**6)))


async def test_an_unknown_tranche_is_a_typed_error(world: World) -> None:
    with pytest.raises(TrancheUnknown):
        await Escrow(world.chain).tranche(TrancheId(b"\x01" * 32))


async def test_a_tranches_id_is_known_before_it_is_opened(world: World) -> None:
    await world.escrow(world.payer).deposit(coins(11))
    expected = await Escrow(world.chain).next_tranche_id(world.payer.address)
    assert (await world.opened(world.tree())).id == expected


async def test_a_deposit_can_be_made_for_somebody_else(world: World) -> None:
    escrow = world.escrow(world.other)
    before = await escrow.free_balance(world.node.address)
    await escrow.deposit_for(world.node.address, coins(3))
    assert await escrow.free_balance(world.node.address) == before + coins(3)


async def test_a_session_key_opens_within_its_cap_until_it_is_thawed(world: World) -> None:
    key, tree = world.ganache.accounts[6], world.tree()
    payer, by_key = world.escrow(world.payer), world.escrow(key)
    await payer.deposit(coins(30))
    expiry = UnixTime(await world.chain.now() + 500)
    await payer.authorize_signer(key.address, coins(12), expiry)
    tranche = await by_key.open_tranche(tree.root, expiry, payer=world.payer.address)
    assert (tranche.payer, tranche.signer) == (world.payer.address, key.address)
    assert (await payer.session_key(world.payer.address, key.address)).opened == coins(11)
    over = by_key.open_tranche(tree.root, expiry, payer=world.payer.address)
    assert "SignerCapExceeded" in await reason_of(over)
    paid = await world.escrow(world.node).redeem([world.item(tranche, tree, 100, by=key)])
    assert paid.paid == 99
    await payer.thaw_signer(key.address)
    assert "SignerThawing" in await reason_of(by_key.open_tranche(tree.root, expiry, payer=world.payer.address))
    assert "SignerNotRevocable" in await reason_of(payer.revoke_signer(key.address))
    world.ganache.advance(600)
    await payer.revoke_signer(key.address)
    assert (await payer.session_key(world.payer.address, key.address)).expiry == 0


# ---- the index ----


async def test_the_index_adds_up_to_what_the_contracts_say(world: World, network: Network) -> None:
    tree = world.tree()
    tranche = await world.opened(tree)
    await world.escrow(world.node).redeem([world.item(tranche, tree, 12345)])
    index = Indexer(world.chain, range_size=7)
    await index.poll()
    state = fold(indexed.event for indexed in index.events)
    escrow, registry, token = Escrow(world.chain), Registry(world.chain), Token(world.chain)
    for account in (a.address for a in world.ganache.accounts):
        assert state.free.get(account, 0) == await escrow.free_balance(account)
        assert state.payees.get(account, 0) == await escrow.payee_balance(account)
        record = await registry.node(account)
        node = state.nodes.get(account)
        assert (record.stake, record.unbonding) == ((node.stake, node.unbonding) if node else (0, 0))
    for identifier, kept in state.tranches.items():
        found = await escrow.tranche(identifier)
        assert (found.total, found.redeemed, found.reclaimed) == (kept.total, kept.redeemed, kept.reclaimed)
    for (identifier, payee), claimed in state.claimed.items():
        assert await escrow.claimed(identifier, payee) == claimed
    assert state.escrowed == await token.balance_of(network.escrow)


class Folding:
    """A handler that keeps a state for every event, and steps back on revert."""

    def __init__(self) -> None:
        self.events: list[Indexed] = []
        self.more = asyncio.Event()

    def apply(self, indexed: Indexed) -> None:
        self.events.append(indexed)
        self.more.set()

    async def deposit_to(self, account: Address) -> None:
        while self.state.free.get(account, 0) == 0:
            self.more.clear()
            await self.more.wait()

    def revert(self, indexed: Indexed) -> None:
        assert self.events.pop() == indexed

    @property
    def state(self) -> NetworkState:
        return fold(indexed.event for indexed in self.events)


async def test_the_index_survives_a_reorg_and_a_restart(world: World, tmp_path: Path) -> None:
    other: Address = world.ganache.accounts[11].address
    await world.opened(world.tree())
    with Store.open(tmp_path / "index.db") as store:
        log = IndexStore(store, "test")
        index = Indexer(world.chain, log)
        seen = Folding()
        for indexed in (await index.poll()).applied:
            seen.apply(indexed)
        snapshot = world.ganache.snapshot()
        await world.escrow(world.payer).deposit_for(other, coins(1))
        world.ganache.mine(3)
        for indexed in (await index.poll()).applied:
            seen.apply(indexed)
        assert seen.state.free[other] == coins(1)
        world.ganache.revert(snapshot)
        await world.escrow(world.payer).deposit_for(other, coins(2))
        again = Indexer(world.chain, log)
        await again.load()
        assert again.events == seen.events
        update = await again.poll()
        assert len(update.reverted) == 1
        for indexed in update.reverted:
            seen.revert(indexed)
        for indexed in update.applied:
            seen.apply(indexed)
    fresh = Indexer(world.chain)
    await fresh.poll()
    assert seen.events == fresh.events
    assert seen.state.free[other] == coins(2)


async def test_a_running_index_keeps_its_handler_current(world: World) -> None:
    seen, other = Folding(), world.ganache.accounts[12].address
    async with asyncio.TaskGroup() as group:
        running = group.create_task(Indexer(world.chain).run(seen, interval=0.05))
        await world.escrow(world.payer).deposit_for(other, coins(1))
        async with asyncio.timeout(20):
            await seen.deposit_to(other)
        running.cancel()
    assert seen.state.free[other] == coins(1)


async def test_the_zero_address_is_nobody(world: World) -> None:
    assert not (await Registry(world.chain).node(ZERO_ADDRESS)).registered
