"""The client's money on a real chain: nothing is lost by a crash, promised twice, or stuck for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from ganache import Ganache

from corolla import Client, Signer
from corolla.catalogue import published_models
from corolla.funds import Funds
from corolla.leases import FileLeases
from corolla.wallet import Wallet, WalletPolicy, Want
from corolla_core.chain.deploy import Terms, deploy_all
from corolla_core.chain.escrow import Escrow, RedeemItem
from corolla_core.chain.models import Models
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import InsufficientFunds, StoreError
from corolla_core.protocol.ids import Address, Hash32, ModelRoot
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime
from corolla_core.store.client_store import ClientStore
from corolla_core.store.records import ClientTranche
from corolla_core.store.store import Store

pytestmark = pytest.mark.anyio
GRACE = 3600
NODES = [Signer(sha256(f"node {i}".encode()).digest()).address for i in range(3)]


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=Terms(grace=GRACE), name="test"))


@pytest.fixture
async def customer(ganache: Ganache, network: Network, request: pytest.FixtureRequest) -> Signer:
    """A new account with coin and ten tokens."""
    fresh = Signer(sha256(request.node.nodeid.encode()).digest())
    ganache.rpc("evm_setAccountBalance", fresh.address, hex(10**18))
    async with await Chain.connect(network) as chain:
        await Token(chain, TransactionSender(chain, ganache.accounts[0])).transfer(
            fresh.address, Nectar(10 * ONE_NECTAR)
        )
    return fresh


@dataclass
class Desk:
    """One run of a client: everything it has in memory goes with it."""

    chain: Chain
    store: Store
    funds: Funds
    leases: FileLeases
    wallet: Wallet


@asynccontextmanager
async def run(network: Network, customer: Signer, folder: Path, *, limit: int | None = None) -> AsyncIterator[Desk]:
    async with await Chain.connect(network) as chain:
        store, leases = Store.open(folder / "client.db"), FileLeases(folder / "leases")
        funds = Funds(chain, customer, store, leases=leases)
        wallet = Wallet(
            signer=customer,
            payer=customer.address,
            domain=network.domain,
            book=funds.book,
            runner=store,
            opener=funds,
            leases=leases,
            clock=time.time,
            policy=WalletPolicy(limit=None if limit is None else Nectar(limit), headroom=2, ttl=7200),
        )
        await wallet.load()
        try:
            yield Desk(chain, store, funds, leases, wallet)
        finally:
            leases.release_all()
            store.close()


def want(payee: Address, need: int, *, spare: bool = False) -> Want:
    return Want(payee, Nectar(need), spare)


async def test_what_is_deposited_can_be_withdrawn(network: Network, customer: Signer, tmp_path: Path) -> None:
    def talk() -> None:
        with Client(network=network, signer=customer, home_dir=tmp_path) as client:
            client.deposit(Nectar(3 * ONE_NECTAR))
            held = client.balance()
            assert (held.wallet, held.free) == (7 * ONE_NECTAR, 3 * ONE_NECTAR)
            assert client.withdraw(Nectar(ONE_NECTAR)) == ONE_NECTAR
            assert client.withdraw() == 2 * ONE_NECTAR
            assert client.balance().wallet == 10 * ONE_NECTAR

    await asyncio.to_thread(talk)


async def test_more_than_there_is_can_be_neither_deposited_nor_withdrawn(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    async with run(network, customer, tmp_path) as desk:
        with pytest.raises(InsufficientFunds) as caught:
            await desk.funds.deposit(Nectar(11 * ONE_NECTAR))
        assert caught.value.available == 10 * ONE_NECTAR
        with pytest.raises(InsufficientFunds):
            await desk.funds.withdraw(Nectar(1))


async def test_a_voucher_is_redeemed_and_the_rest_comes_back(
    ganache: Ganache, network: Network, customer: Signer, tmp_path: Path
) -> None:
    snapshot = ganache.snapshot()
    try:
        async with run(network, customer, tmp_path) as desk:
            await desk.funds.deposit(Nectar(5000))
            purse = (await desk.wallet.reserve([want(NODES[0], 1000), want(NODES[1], 500, spare=True)]))[NODES[0]]
            assert await desk.funds.free_balance() == 2000
            purse.order(Nectar(700))
            (signed,) = await desk.wallet.sign([purse])
            assert signed is not None
            anyone = Escrow(desk.chain, TransactionSender(desk.chain, ganache.accounts[1]))
            paid = await anyone.redeem([RedeemItem(signed, purse.leaf, purse.proof)])
            assert paid.items[0].amount == 700

            (status,) = await desk.funds.tranches()
            assert (status.tranche.total, status.signed, status.redeemed) == (3000, 700, 700)
            assert (await desk.funds.balance()).locked == 2300
            assert await desk.funds.reclaim() == {}
            ganache.advance(7200 + GRACE + 60)
            assert list((await desk.funds.reclaim()).values()) == [2300]
            assert await desk.funds.free_balance() == 4300
            assert await desk.funds.tranches() == []
    finally:
        ganache.revert(snapshot)


async def test_a_client_that_starts_again_goes_on_where_it_stopped(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    async with run(network, customer, tmp_path) as desk:
        await desk.funds.deposit(Nectar(5000))
        purse = (await desk.wallet.reserve([want(NODES[0], 1000)]))[NODES[0]]
        purse.order(Nectar(300))
        await desk.wallet.sign([purse])
        purse.order(Nectar(50))  # never promised: gone with the process
    async with run(network, customer, tmp_path, limit=100) as desk:
        again = (await desk.wallet.reserve([want(NODES[0], 100)]))[NODES[0]]
        assert again.tranche_id == purse.tranche_id
        again.order(Nectar(60))
        (signed,) = await desk.wallet.sign([again])
        assert signed is not None
        assert signed.voucher.cumulative == 360
        assert desk.wallet.committed == 60  # the limit counts what this run promises
        assert len(await desk.funds.tranches()) == 1


async def test_two_clients_of_one_account_never_draw_on_one_tranche(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    async with run(network, customer, tmp_path) as one:
        await one.funds.deposit(Nectar(5000))
        first = (await one.wallet.reserve([want(NODES[0], 1000)]))[NODES[0]]
        async with run(network, customer, tmp_path) as two:
            second = (await two.wallet.reserve([want(NODES[0], 1000)]))[NODES[0]]
            assert second.tranche_id != first.tranche_id
            assert len(await one.funds.tranches()) == 2


async def test_two_clients_opening_tranches_at_once_get_one_each(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    async with run(network, customer, tmp_path) as one, run(network, customer, tmp_path) as two:
        await one.funds.deposit(Nectar(5000))
        purses = await asyncio.gather(
            one.wallet.reserve([want(NODES[0], 300)]), two.wallet.reserve([want(NODES[1], 400)])
        )
        ids = {purse.tranche_id for found in purses for purse in found.values()}
        assert len(ids) == 2
        known = {status.tranche.tranche_id: status.tranche for status in await one.funds.tranches()}
        assert set(known) == ids
        for found in purses:
            for payee, purse in found.items():
                assert [leaf.payee for leaf in known[purse.tranche_id].leaves] == [payee]


async def test_a_tranche_opened_just_before_a_crash_is_found_again(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    leaves = (Leaf(NODES[0], Nectar(1000)),)
    async with run(network, customer, tmp_path) as desk:
        await desk.funds.deposit(Nectar(5000))
        expiry = UnixTime(int(time.time()) + 7200)
        planned = await desk.funds.escrow.next_tranche_id(customer.address)
        plan = ClientTranche(planned, customer.address, customer.address, 0, leaves, expiry)
        desk.funds.book.record_tranche(plan)
        await desk.funds.escrow.open_tranche(SumTree(leaves).root, expiry)  # and dies before it can note so
    async with run(network, customer, tmp_path) as desk:
        (status,) = await desk.funds.tranches()
        assert status.tranche.tranche_id == planned
        await desk.wallet.load()
        assert desk.wallet.has_leaf(want(NODES[0], 1000))


async def test_a_plan_whose_transaction_never_came_is_dropped_once_it_cannot_any_more(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    async with run(network, customer, tmp_path) as desk:
        planned = await desk.funds.escrow.next_tranche_id(customer.address)
        leaves = (Leaf(NODES[0], Nectar(1000)),)
        past = UnixTime(int(time.time()) - 10)
        desk.funds.book.record_tranche(ClientTranche(planned, customer.address, customer.address, 0, leaves, past))
        assert await desk.funds.tranches() == []
        assert desk.funds.book.tranches(customer.address, open_only=True) == []


async def test_published_models_are_listed(ganache: Ganache, network: Network) -> None:
    async with await Chain.connect(network) as chain:
        models = Models(chain, TransactionSender(chain, ganache.accounts[0]))
        roots = [Hash32(bytes([i]) * 32) for i in (1, 2)]
        await models.publish("tiny", ModelRoot(b"a" * 32), roots, [NumericClass.FP32])
        await models.publish("tiny", ModelRoot(b"b" * 32), roots, [NumericClass.FP32])
        await models.publish("other", ModelRoot(b"c" * 32), roots, [NumericClass.FP32])
        found = await published_models(chain)
        assert [(m.name, m.version.version, m.version.manifest_root) for m in found] == [
            ("other", 1, b"c" * 32),
            ("tiny", 2, b"b" * 32),
        ]


async def test_a_tranche_another_process_is_opening_is_waited_for(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    """Two processes of one account: the second never plans over what the first has planned."""
    async with run(network, customer, tmp_path) as first, run(network, customer, tmp_path) as second:
        await first.funds.deposit(Nectar(1000))
        theirs = SumTree([Leaf(NODES[0], Nectar(100))])
        planned = await first.funds.escrow.next_tranche_id(customer.address)
        assert first.leases.acquire(planned)
        waits = 0

        async def sleep(_seconds: float) -> None:
            nonlocal waits
            waits += 1
            if waits == 2:
                await first.funds.open(theirs, UnixTime(int(time.time()) + 7200))

        late = Funds(second.chain, customer, second.store, leases=second.leases, sleep=sleep)
        opened = await late.open(SumTree([Leaf(NODES[1], Nectar(200))]), UnixTime(int(time.time()) + 7200))
        assert waits == 2
        assert opened.tranche_id != planned
        kept = {t.tranche_id: t for t in ClientStore(second.store).tranches()}
        assert kept[planned].leaves == theirs.leaves
        assert kept[planned].opened_tx is not None
        assert (await late.balance()).locked == 300


async def test_a_process_that_never_gets_on_with_its_tranche_is_a_typed_error(
    network: Network, customer: Signer, tmp_path: Path
) -> None:
    async with run(network, customer, tmp_path) as first, run(network, customer, tmp_path) as second:
        assert first.leases.acquire(await first.funds.escrow.next_tranche_id(customer.address))

        async def sleep(_seconds: float) -> None:
            await asyncio.sleep(0)

        late = Funds(second.chain, customer, second.store, leases=second.leases, sleep=sleep)
        with pytest.raises(StoreError):
            await late.open(SumTree([Leaf(NODES[1], Nectar(200))]), UnixTime(int(time.time()) + 7200))
        assert ClientStore(second.store).tranches() == []
