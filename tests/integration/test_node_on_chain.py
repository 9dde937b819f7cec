"""A node's money on a real chain: staking, redeeming after a crash, withdrawing, and the commands for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import time
from typing import Any

import pytest
from ganache import Ganache
from typer.testing import CliRunner

from corolla_core.chain.deploy import deploy_all
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.keystore import create_account
from corolla_core.chain.models import Models
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import InsufficientFunds, ModelError
from corolla_core.protocol.ids import ZERO_HASH, Hash32, ModelRoot, PeerId, address
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime
from corolla_core.protocol.voucher import Voucher
from corolla_core.store.store import Store
from corolla_node.bookkeeper import Batch, VoucherEntry
from corolla_node.books import Books
from corolla_node.cli.main import app
from corolla_node.onchain import EscrowTill, check_model, ensure_registered
from corolla_node.redeemer import Redeemer, Thrift

pytestmark = pytest.mark.anyio
PEER = PeerId("12D3KooWExample")
TOKENS = Nectar(1000 * ONE_NECTAR)


@pytest.fixture(scope="module")
def network(ganache: Ganache, tmp_path_factory: pytest.TempPathFactory) -> Network:
    async def deploy() -> Network:
        network = await deploy_all(ganache.url, ganache.accounts[0], unbonding_delay=60)
        async with await Chain.connect(network) as chain:
            token = Token(chain, TransactionSender(chain, ganache.accounts[0]))
            for funded in ganache.accounts[1:6]:
                await token.mint(funded.address, TOKENS)
        return network

    return asyncio.run(deploy())


def manifest(salt: bytes) -> Manifest:
    root = Hash32(salt * 32)
    return Manifest("tiny", root, root, (root, root), root)


async def test_registering_stakes_the_minimum_once_and_tops_up_to_what_is_asked(
    ganache: Ganache,
    network: Network,
) -> None:
    me = ganache.accounts[1]
    async with await Chain.connect(network) as chain:
        sender = TransactionSender(chain, me)
        registry, token = Registry(chain, sender), Token(chain, sender)
        minimum = await registry.min_stake()

        async def ensure(stake: int | None, peer: PeerId = PEER) -> Nectar:
            wanted = None if stake is None else Nectar(stake)
            return await ensure_registered(registry, token, account=me.address, peer_id=peer, owner=None, stake=wanted)

        assert await ensure(None) == minimum
        assert await ensure(None) == minimum
        assert await ensure(minimum + 5, PeerId("12D3KooWMoved")) == minimum + 5
        record = await registry.node(me.address)
        assert (record.stake, record.peer_id, record.owner) == (minimum + 5, b"12D3KooWMoved", me.address)
        assert await token.balance_of(me.address) == TOKENS - minimum - 5
        with pytest.raises(InsufficientFunds) as poor:
            await ensure(TOKENS + 6)
        assert (poor.value.available, poor.value.needed) == (TOKENS - minimum - 5, TOKENS + 6 - minimum - 5)


async def test_only_the_networks_own_weights_are_served(
    ganache: Ganache,
    network: Network,
) -> None:
    async with await Chain.connect(network) as chain:
        models = Models(chain, TransactionSender(chain, ganache.accounts[2]))
        true = manifest(b"t")
        with pytest.raises(ModelError):
            await check_model(models, true)
        await models.publish("tiny", true.root, true.block_roots, [NumericClass.FP32])
        assert await check_model(models, true) == (NumericClass.FP32,)
        with pytest.raises(ModelError, match=true.root.hex()):
            await check_model(models, manifest(b"f"))


async def test_vouchers_kept_by_a_node_that_was_killed_are_redeemed_by_the_next_and_only_once(
    ganache: Ganache,
    network: Network,
    tmp_path: Path,
) -> None:
    payer, node = ganache.accounts[3], ganache.accounts[1]
    async with await Chain.connect(network) as chain:
        paying, redeeming = TransactionSender(chain, payer), TransactionSender(chain, node)
        entry = await promise(Escrow(chain, paying), payer, node.address, network, amount=7_000_000)
        books_at = tmp_path / "books.db"
        with Store.open(books_at) as store:
            await books(store, node.address).write(batch(entry))
        # The store was closed with nothing redeemed: a new node starts on it.
        escrow = Escrow(chain, redeeming)
        with Store.open(books_at) as store:
            kept = books(store, node.address)
            redeemer = Redeemer(EscrowTill(chain, escrow), kept, clock=time, thrift=Thrift(gas_value=0))
            assert await redeemer.redeem() == 7_000_000
            assert await redeemer.redeem(final=True) == 0
        fee = 7_000_000 * (await escrow.parameters()).fee_bps // 10_000
        assert await escrow.payee_balance(node.address) == 7_000_000 - fee
        # A node killed between the transaction and its note of it finds out from the chain.
        with Store.open(tmp_path / "older.db") as store:
            kept = books(store, node.address)
            await kept.write(batch(entry))
            redeemer = Redeemer(EscrowTill(chain, escrow), kept, clock=time, thrift=Thrift(gas_value=0))
            block = await chain.block_number()
            assert await redeemer.redeem() == 0
            assert await chain.block_number() == block
            assert await kept.unredeemed() == []


async def promise(escrow: Escrow, payer: Any, payee: str, network: Network, *, amount: int) -> VoucherEntry:
    """A voucher on a fresh tranche of the payer's."""
    tree = SumTree([Leaf(address(payee), Nectar(amount))])
    expiry = UnixTime(int(time()) + 24 * 3600)
    await escrow.deposit(Nectar(amount))
    tranche = await escrow.open_tranche(tree.root, expiry)
    voucher = Voucher(tranche.id, address(payee), Nectar(amount), ZERO_HASH)
    return VoucherEntry(voucher.sign(network.domain, payer), tree.leaves[0], tree.proof(0), expiry)


def batch(entry: VoucherEntry) -> Batch:
    return Batch(vouchers={entry.signed.voucher.tranche_id: entry})


def books(store: Store, payee: str) -> Books:
    return Books(store, payee=address(payee), model_root=ModelRoot(b"m" * 32), clock=time)


def test_a_person_stakes_unstakes_earns_and_withdraws_by_command(
    ganache: Ganache,
    network: Network,
    tmp_path: Path,
) -> None:
    me, payer = ganache.accounts[4], ganache.accounts[3]
    keystore, password = tmp_path / "key.json", tmp_path / "password"
    password.write_text("secret\n")
    create_account(keystore, "secret", secret=me.secret, kdf="pbkdf2", iterations=10)
    network.save(tmp_path / "networks")
    env = {"COROLLA_HOME": str(tmp_path), "COROLLA_NODE_ACCOUNT": str(keystore), "COROLLA_NETWORK": network.name}

    def run(*command: str, fails: bool = False) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*command, "--json"], env=env)
        assert (result.exit_code != 0) is fails, result.output
        shown: dict[str, Any] = {"error": result.stderr} if fails else json.loads(result.stdout)
        return shown

    with_key = ("--password-file", str(password))

    async def register() -> None:
        async with await Chain.connect(network) as chain:
            sender = TransactionSender(chain, me)
            registry, token = Registry(chain, sender), Token(chain, sender)
            await ensure_registered(registry, token, account=me.address, peer_id=PEER, owner=None, stake=None)
            paying = Escrow(chain, TransactionSender(chain, payer))
            entry = await promise(paying, payer, me.address, network, amount=2 * ONE_NECTAR)
            with Store.open(tmp_path / "node" / "books.db") as store:
                kept = books(store, me.address)
                await kept.write(batch(entry))

    async def redeem() -> None:
        async with await Chain.connect(network) as chain:
            with Store.open(tmp_path / "node" / "books.db") as store:
                kept = books(store, me.address)
                sender = TransactionSender(chain, me)
                till = EscrowTill(chain, Escrow(chain, sender))
                await Redeemer(till, kept, clock=time, thrift=Thrift(gas_value=0)).redeem()

    asyncio.run(register())
    assert run("earnings")["unredeemed"] == "2"
    asyncio.run(redeem())
    assert run("stake")["stake"] == "100"
    assert "yes" in run("stake", "5", *with_key, fails=True)["error"]
    assert run("stake", "5", "--yes", *with_key)["stake"] == "105"
    earned = run("earnings")
    assert (earned["earned"], earned["redeemed"], earned["unredeemed"]) == ("2", "2", "0")
    assert earned["withdrawable"] == "1.98"
    assert run("withdraw", *with_key)["withdrawn"] == "1.98"
    assert run("withdraw", *with_key)["withdrawn"] == "0"
    assert run("unstake", "30.5", "--yes", *with_key)["unbonding"] == "30.5"
    assert "StillUnbonding" in run("unstake", "--finish", *with_key, fails=True)["error"]
    ganache.advance(61)
    before = float(run("stake")["wallet"])
    # The redemption locked a tenth of its amount for the audit window, which is over by now.
    assert run("unstake", "--finish", *with_key)["wallet"] == f"{before + 30.5:g}"
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    assert "KeystoreError" in run("withdraw", "--password-file", str(wrong), fails=True)["error"]
