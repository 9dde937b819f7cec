"""The sender against Ganache, with rivals, outages and a hung endpoint."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from ganache import CHAIN_ID, Ganache, running_ganache
from proxy import FlakyProxy

from corolla_core.chain.account import Call
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import Patience, TransactionSender
from corolla_core.protocol.errors import ChainUnreachable, InsufficientFunds, TransactionNotMined, WrongChain
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import Wei

pytestmark = pytest.mark.anyio

BARE = (ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS, ZERO_ADDRESS)


def fresh() -> Address:
    return Signer(secrets.token_bytes(32)).address


@asynccontextmanager
async def connected(url: str, *, deadline: float = 30.0, try_seconds: float = 2.0) -> AsyncIterator[Chain]:
    network = Network("bare", CHAIN_ID, url, *BARE)
    async with await Chain.connect(network, deadline=deadline, try_seconds=try_seconds) as chain:
        yield chain


async def test_two_processes_with_one_key_both_get_everything_through(ganache: Ganache) -> None:
    payee = fresh()
    async with connected(ganache.url) as one, connected(ganache.url) as two:
        senders = [TransactionSender(chain, ganache.accounts[1]) for chain in (one, two)]
        calls = [senders[n % 2].send(Call(payee, value=Wei(1), data=bytes([n]))) for n in range(16)]
        mined = await asyncio.gather(*calls)
        assert await one.balance(payee) == 16
    assert len({each.tx_hash for each in mined}) == 16


async def test_many_calls_wait_in_one_block(ganache: Ganache) -> None:
    payee = fresh()
    with running_ganache(block_time=1) as slow:
        async with connected(slow.url) as chain:
            sender = TransactionSender(chain, slow.accounts[1])
            mined = await asyncio.gather(*(sender.send(Call(payee, value=Wei(1), data=bytes([n]))) for n in range(8)))
            assert await chain.balance(payee) == 8
        assert len({each.block_number for each in mined}) <= 3


async def test_an_outage_between_sending_and_mining_pays_once(ganache: Ganache) -> None:
    payee = fresh()
    port = int(ganache.url.rpartition(":")[2])
    async with FlakyProxy(port) as proxy, connected(proxy.url) as chain:
        sender = TransactionSender(chain, ganache.accounts[2])
        ganache.rpc("miner_stop")
        paying = asyncio.create_task(sender.send(Call(payee, value=Wei(5))))
        await asyncio.sleep(0.5)
        await proxy.cut()
        ganache.rpc("miner_start")
        await asyncio.sleep(1.0)
        await proxy.restore()
        await paying
        assert await chain.balance(payee) == 5


async def test_answers_lost_while_sending_pay_once(ganache: Ganache) -> None:
    payee = fresh()
    port = int(ganache.url.rpartition(":")[2])
    async with FlakyProxy(port) as proxy, connected(proxy.url, try_seconds=0.3) as chain:
        sender = TransactionSender(chain, ganache.accounts[3])
        call = Call(payee, value=Wei(5), gas=21_000)
        await sender.send(call)

        async def mute_for_a_while() -> None:
            await asyncio.sleep(0.05)
            proxy.mute = True
            await asyncio.sleep(1.0)
            proxy.mute = False

        await asyncio.gather(mute_for_a_while(), *(sender.send(call) for _ in range(5)))
        assert await chain.balance(payee) == 30


async def test_a_hung_endpoint_is_unreachable_by_the_deadline() -> None:
    with running_ganache() as hung:
        async with connected(hung.url, deadline=1.0, try_seconds=0.4) as chain:
            hung.pause()
            began = asyncio.get_running_loop().time()
            with pytest.raises(ChainUnreachable):
                await chain.block_number()
            assert asyncio.get_running_loop().time() - began < 4.0
            hung.resume()
            await asyncio.sleep(0.1)
            assert await chain.block_number() >= 0


async def test_a_restarted_endpoint_is_found_again(ganache: Ganache) -> None:
    port = int(ganache.url.rpartition(":")[2])
    async with FlakyProxy(port) as proxy, connected(proxy.url) as chain:
        await proxy.cut()
        reading = asyncio.create_task(chain.block_number())
        await asyncio.sleep(0.5)
        await proxy.restore()
        assert await reading >= 0


async def test_ganache_which_executes_copies_of_a_transaction_is_never_given_any(ganache: Ganache) -> None:
    payee = fresh()
    ganache.rpc("miner_stop")
    async with connected(ganache.url) as chain:
        patience = Patience(mined=60.0, bump=0.2, rebroadcast=0.1)
        sender = TransactionSender(chain, ganache.accounts[4], patience=patience)
        sent = await sender.send(Call(payee, value=Wei(5)), wait=False)
        following = asyncio.create_task(sent.mined())
        await asyncio.sleep(1.5)
        await sender.send(Call(payee, value=Wei(6)), wait=False)
        ganache.rpc("miner_start")
        mined = await following
        assert mined.tx_hash == sent.tx_hash
        await asyncio.sleep(0.3)
        assert await chain.balance(payee) == 11


async def test_a_transaction_nobody_mines_is_taken_up_again_later(ganache: Ganache) -> None:
    payee = fresh()
    ganache.rpc("miner_stop")
    async with connected(ganache.url) as chain:
        sender = TransactionSender(chain, ganache.accounts[5], patience=Patience(mined=0.5))
        with pytest.raises(TransactionNotMined):
            await sender.send(Call(payee, value=Wei(5)))
        ganache.rpc("miner_start")
        await sender.send(Call(payee, value=Wei(5)))
        assert await chain.balance(payee) == 5


async def test_another_chain_behind_the_address_is_noticed(ganache: Ganache) -> None:
    with pytest.raises(WrongChain):
        await Chain.connect(Network("other", 1, ganache.url, *BARE))


async def test_an_account_without_gas_money_is_a_typed_error(ganache: Ganache) -> None:
    async with connected(ganache.url) as chain:
        poor = TransactionSender(chain, Signer(b"\x77" * 32))
        with pytest.raises(InsufficientFunds):
            await poor.send(Call(address(b"\x01" * 20), value=Wei(1), gas=21_000))
