"""The bindings of provable faults against the real contract on Ganache."""

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
from corolla_core.chain.escrow import Escrow, RedeemItem
from corolla_core.chain.faults import (
    ChallengeState,
    FaultParameters,
    Faults,
    ManifestParts,
    Payment,
    Side,
    challenge_id,
)
from corolla_core.chain.models import Models
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import ConfigError, TransactionReverted
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Hash32, SessionId, TrancheId
from corolla_core.protocol.merkle import merkle_proof, merkle_root
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype, row_leaf
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime
from corolla_core.protocol.voucher import Voucher

pytestmark = pytest.mark.anyio

PARAMETERS = FaultParameters(response_time=60, jail=500, weights_bps=6_000, opening_bond=Nectar(7))
STAKE = Nectar(200 * ONE_NECTAR)
PAID = Nectar(50)
FOR_GOOD = 2**64 - 1
SESSION = SessionId(b"0123456789abcdef")
X = Hash32(b"\x0e" * 32)
MANIFEST = Manifest(
    "smol",
    config_root=Hash32(keccak(text="config")),
    front_root=Hash32(keccak(text="front")),
    block_roots=tuple(Hash32(keccak(text=f"block {i}")) for i in range(13)),
    head_root=Hash32(keccak(text="head")),
)
PARTS = ManifestParts(MANIFEST.name, MANIFEST.config_root, MANIFEST.front_root, MANIFEST.head_root)
ROWS = [bytes([i]) * 24 for i in range(5)]
LEAVES = [row_leaf(SESSION, i, row) for i, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=Terms(faults=PARAMETERS), name="test"))


class World:
    """A network with a published model; `challenger` brings the proofs."""

    def __init__(self, chain: Chain, ganache: Ganache) -> None:
        self.chain, self.ganache = chain, ganache
        self.minter, self.payer, self.challenger = ganache.accounts[:3]

    def faults(self, signer: Signer) -> Faults:
        return Faults(self.chain, TransactionSender(self.chain, signer))

    async def mint(self, to: Signer, amount: Nectar) -> None:
        await Token(self.chain, TransactionSender(self.chain, self.minter)).mint(to.address, amount)

    async def node(self, index: int) -> Signer:
        """A freshly staked node."""
        node = self.ganache.accounts[index]
        await self.mint(node, STAKE)
        await Registry(self.chain, TransactionSender(self.chain, node)).register(b"peer", node.address, STAKE)
        return node

    async def stake_of(self, node: Signer) -> int:
        return (await Registry(self.chain).node(node.address)).stake

    async def receipt(self, span: Span = Span(4, 13)) -> Receipt:  # noqa: B008 — frozen
        now = await self.chain.now() * 1000
        return Receipt(
            chain_id=self.chain.chain_id,
            epoch=0,
            model_root=MANIFEST.root,
            span=span,
            weight_root=MANIFEST.weight_root(span),
            numeric_class=NumericClass.FP32,
            session_id=SESSION,
            client_nonce=bytes(X),
            pos_start=0,
            n_pos=len(ROWS),
            wire=WireDtype.FLOAT32,
            batch=1,
            order_root=ZERO_HASH,
            in_root=merkle_root(LEAVES),
            out_root=X,
            upstream_receipt_hash=ZERO_HASH,
            prev_receipt_hash=ZERO_HASH,
            t_in=now,
            t_out=now,
        )

    async def paid(self, node: Signer, head: Receipt) -> TrancheId:
        """A tranche that the node redeemed on with this receipt as the head."""
        tree = SumTree([Leaf(node.address, Nectar(100))])
        await self.mint(self.payer, Nectar(100))
        escrow = Escrow(self.chain, TransactionSender(self.chain, self.payer))
        await escrow.deposit(Nectar(100))
        tranche = await escrow.open_tranche(tree.root, UnixTime(await self.chain.now() + 1000))
        voucher = Voucher(tranche.id, node.address, PAID, head.hash())
        await escrow.redeem(
            [RedeemItem(voucher.sign(self.chain.network.domain, self.payer), tree.leaves[0], tree.proof(0))]
        )
        return tranche.id


@pytest.fixture
async def world(network: Network, ganache: Ganache) -> AsyncIterator[World]:
    async with await Chain.connect(network) as chain:
        yield World(chain, ganache)


async def reason_of(work: Awaitable[object]) -> str:
    with pytest.raises(TransactionReverted) as error:
        await work
    return str(error.value.reason)


async def test_a_deployed_network_punishes_faults_and_its_governance_is_the_timelock(
    world: World, network: Network, tmp_path: Path
) -> None:
    registry, read = load_abi("NodeRegistry"), world.chain.read
    for role in ("SLASHER_ROLE", "JAILER_ROLE"):
        assert await read(network.registry, registry, "hasRole", keccak(text=role), network.faults)
    assert await read(network.faults, load_abi("Faults"), "owner") == network.timelock
    assert await Faults(world.chain).parameters() == PARAMETERS
    assert Network.load(network.save(tmp_path)) == network


async def test_a_network_without_the_contract_says_so(world: World) -> None:
    async with await Chain.connect(replace(world.chain.network, faults=ZERO_ADDRESS)) as chain:
        with pytest.raises(ConfigError, match="no contract of provable faults"):
            Faults(chain)


async def test_a_fork_and_a_broken_link_cost_everything_and_the_client_is_refunded(world: World) -> None:
    forker, linker = await world.node(4), await world.node(5)
    faults = world.faults(world.challenger)
    upstream = (await world.receipt(Span(0, 4))).sign(forker)
    assert "NoFault" in await reason_of(faults.prove_equivocation(upstream, upstream))
    other = replace(upstream.receipt, in_root=X).sign(forker)
    before = await Token(world.chain).balance_of(world.challenger.address)
    payment = Payment(await world.paid(forker, other.receipt), other.receipt)
    client = await Token(world.chain).balance_of(world.payer.address)
    punished = await faults.prove_equivocation(upstream, other, payment=payment)
    assert (punished.node, punished.challenger) == (forker.address, world.challenger.address)
    assert (punished.taken, punished.reward, punished.until) == (STAKE, STAKE * 3 // 10, FOR_GOOD)
    assert punished.refund == PAID == await Token(world.chain).balance_of(world.payer.address) - client
    assert await Token(world.chain).balance_of(world.challenger.address) == before + punished.reward
    assert "AlreadyPunished" in await reason_of(faults.prove_equivocation(other, upstream))

    linked = replace(await world.receipt(), in_root=X, upstream_receipt_hash=other.receipt.hash())
    assert "NoFault" in await reason_of(
        faults.prove_broken_link(replace(linked, out_root=ZERO_HASH).sign(linker), upstream)
    )
    honest = replace(linked, in_root=other.receipt.out_root).sign(linker)
    assert "NoFault" in await reason_of(faults.prove_broken_link(honest, other))
    broken = replace(linked, in_root=merkle_root(LEAVES)).sign(linker)
    payment = Payment(await world.paid(linker, broken.receipt), broken.receipt)
    punished = await faults.prove_broken_link(broken, other, payment=payment)
    assert (punished.node, punished.taken, punished.refund) == (linker.address, STAKE, PAID)
    assert (await Registry(world.chain).node(linker.address)).jailed_until == FOR_GOOD


async def test_false_weights_are_proven_from_the_manifest(world: World) -> None:
    node, faults = await world.node(6), world.faults(world.challenger)
    models = Models(world.chain, TransactionSender(world.chain, world.payer))
    await models.publish(MANIFEST.name, MANIFEST.root, MANIFEST.block_roots, [NumericClass.FP32])
    receipt = await world.receipt()
    assert "NoFault" in await reason_of(faults.prove_weights(receipt.sign(node), 1, PARTS))
    false = replace(receipt, weight_root=X).sign(node)
    assert "ManifestMismatch" in await reason_of(faults.prove_weights(false, 1, replace(PARTS, head_root=X)))
    assert "VersionUnknown" in await reason_of(faults.prove_weights(false, 2, PARTS))
    tranche = await world.paid(node, false.receipt)
    punished = await faults.prove_weights(false, 1, PARTS, payment=Payment(tranche, receipt))
    assert punished.taken == STAKE * 6 // 10 == STAKE - await world.stake_of(node)
    assert punished.refund == 0  # the receipt named is not the one the node redeemed with
    false = replace(false.receipt, numeric_class=NumericClass.NF4).sign(node)
    tranche = await world.paid(node, false.receipt)
    assert (await faults.prove_weights(false, 1, PARTS, payment=Payment(tranche, false.receipt))).refund == PAID


async def test_a_paid_row_is_opened_and_its_bond_is_the_nodes(world: World) -> None:
    node, faults = await world.node(7), world.faults(world.challenger)
    first = await world.receipt()
    second = replace(first, pos_start=5, prev_receipt_hash=first.hash())
    tranche = await world.paid(node, second)
    signed = first.sign(node)
    await world.mint(world.challenger, Nectar(7))
    assert "ChainBroken" in await reason_of(faults.challenge_opening(signed, 3, Side.INPUT, tranche=tranche))
    challenge = await faults.challenge_opening(signed, 3, Side.INPUT, tranche=tranche, later=[second])
    assert challenge == challenge_id(first.hash(), 3, Side.INPUT)
    opening = await faults.opening(challenge)
    assert (opening.node, opening.challenger) == (node.address, world.challenger.address)
    assert (opening.session_id, opening.position, opening.root) == (SESSION, 3, first.in_root)
    assert (opening.index, opening.size, opening.bond, opening.state) == (3, 5, 7, ChallengeState.OPEN)
    assert opening.tranche == tranche
    assert opening.deadline == opening.opened_at + PARAMETERS.response_time
    branch = [sibling for _, sibling in merkle_proof(LEAVES, 3)]
    assert "OpeningInvalid" in await reason_of(world.faults(node).open(challenge, ROWS[2], branch))
    assert "DeadlineNotPassed" in await reason_of(faults.expire_opening(challenge))
    mined = await world.faults(node).open(challenge, ROWS[3], branch)
    assert faults.row_in(mined) == ROWS[3]
    assert await Token(world.chain).balance_of(node.address) == 7
    assert (await faults.opening(challenge)).state == ChallengeState.ANSWERED


async def test_a_withheld_row_costs_stake_once_an_outage(world: World) -> None:
    node, faults = await world.node(8), world.faults(world.challenger)
    receipt = await world.receipt()
    tranche = await world.paid(node, receipt)
    await world.mint(world.challenger, Nectar(14))
    signed: SignedReceipt = receipt.sign(node)
    asked = [await faults.challenge_opening(signed, position, Side.OUTPUT, tranche=tranche) for position in (0, 4)]
    world.ganache.advance(PARAMETERS.response_time + 5)
    punished = await faults.expire_opening(asked[0])
    assert punished is not None
    assert (punished.node, punished.taken, punished.refund) == (node.address, STAKE * 5 // 100, PAID)
    assert await faults.expire_opening(asked[1]) is None
    assert await world.stake_of(node) == STAKE * 95 // 100
    states = [(await faults.opening(each)).state for each in asked]
    assert states == [ChallengeState.EXPIRED, ChallengeState.NONE]
    record = await Registry(world.chain).node(node.address)
    assert (record.jailed_until, record.active) == (punished.until, False)
