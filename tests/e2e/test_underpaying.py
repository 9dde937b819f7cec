"""A client that does not pay is stopped within one chunk; one that would overpay cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from bare_client import BareClient, Deal, open_deal

from corolla.devnet.devnet import DEFAULT_PRICE, Devnet, Funded
from corolla.devnet.node import DevnetNode
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.errors import (
    TransactionReverted,
    VoucherForged,
    VoucherOverCap,
    VoucherStale,
    VoucherTooSmall,
)
from corolla_core.protocol.ids import ModelRoot, address_bytes
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm import messages

pytestmark = pytest.mark.anyio

CHUNK = 8
HIDDEN = 576
PRICE = Price(DEFAULT_PRICE)
CAP_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Customer:
    """A bare client, connected to one node, with a tranche that pays for 40 tokens there."""

    devnet: Devnet
    node: DevnetNode
    account: Funded
    deal: Deal
    wire: BareClient

    @property
    def model_root(self) -> ModelRoot:
        return ModelRoot(bytes.fromhex(self.node.ready["model_root"]))

    async def open(self) -> tuple[bytes, messages.Opened]:
        session = await self.wire.open(self.deal, self.model_root, chunk=CHUNK)
        return session, await self.wire.expect(messages.Opened)

    async def charged(self) -> int:
        """What the node says it has charged to the tranche."""
        session, opened = await self.open()
        self.wire.connection.send(messages.Close(session))
        await self.wire.expect(messages.Closed)
        return int.from_bytes(opened.charged, "big")

    def pay(self, cumulative: int, *, payee: DevnetNode | None = None, signer: Funded | None = None) -> None:
        by = (signer or self.account).signer
        to = None if payee is None else payee.account
        self.wire.pay(self.deal.voucher(cumulative, network=self.devnet.network, signer=by, payee=to))


@pytest.fixture
async def customer(devnet: Devnet) -> AsyncIterator[Customer]:
    node = devnet.nodes[0]
    account = await devnet.new_account(f"bare-{len(list((devnet.folder / 'keys').iterdir()))}")
    span = Span(0, 10)
    cap = PRICE.of(span, CAP_TOKENS)
    deal = await open_deal(devnet.network, account.signer, node.account, span=span, price=PRICE, cap=cap)
    ready = node.ready
    where = messages.Endpoint(
        address_bytes(node.account), ready["host"], ready["port"], bytes.fromhex(ready["cert_hash"]), ready["peer_id"]
    )
    wire = await BareClient.connect(where, account.signer)
    yield Customer(devnet, node, account, deal, wire)
    await wire.close()


async def test_a_client_that_never_pays_gets_one_chunk_and_a_bill(customer: Customer) -> None:
    session, _ = await customer.open()
    for index in range(CHUNK):
        customer.wire.step(session, index + 1, pos=index, hidden=HIDDEN)
        await customer.wire.expect(messages.Result)
    customer.wire.step(session, CHUNK + 1, pos=CHUNK, hidden=HIDDEN)
    error = await customer.wire.refused(messages.Result)
    assert isinstance(error, VoucherTooSmall)
    assert error.offered == 0
    assert error.owed == customer.deal.cost(1), "one token must be paid, so that again one chunk is unpaid"
    assert await customer.charged() == customer.deal.cost(CHUNK)


async def test_what_the_bill_names_lets_the_same_step_go_on(customer: Customer) -> None:
    session, _ = await customer.open()
    for index in range(CHUNK):
        customer.wire.step(session, index + 1, pos=index, hidden=HIDDEN)
        await customer.wire.expect(messages.Result)
    customer.wire.step(session, CHUNK + 1, pos=CHUNK, hidden=HIDDEN)
    error = await customer.wire.refused(messages.Result)
    customer.pay(error.owed)
    await customer.wire.expect(messages.Paid)
    customer.wire.step(session, CHUNK + 1, pos=CHUNK, hidden=HIDDEN)
    result = await customer.wire.expect(messages.Result)
    assert result.step == CHUNK + 1
    assert await customer.charged() == customer.deal.cost(CHUNK + 1)


async def test_many_unpaid_sessions_get_one_chunk_together(customer: Customer) -> None:
    served = 0
    for _ in range(3):
        session, _ = await customer.open()
        for index in range(CHUNK):
            customer.wire.step(session, index + 1, pos=index, hidden=HIDDEN)
            try:
                await customer.wire.expect(messages.Result)
            except VoucherTooSmall:
                break
            served += 1
    assert served == CHUNK


async def test_a_prompt_larger_than_a_chunk_is_not_begun_unpaid(customer: Customer) -> None:
    session, _ = await customer.open()
    customer.wire.step(session, 1, pos=0, hidden=HIDDEN, tokens=CHUNK + 4)
    error = await customer.wire.refused(messages.Result)
    assert isinstance(error, VoucherTooSmall)
    assert error.owed == customer.deal.cost(4)
    assert await customer.charged() == 0


async def test_a_voucher_over_the_cap_is_refused_and_the_chain_would_not_pay_it(
    customer: Customer, chain: Chain, escrow: Escrow
) -> None:
    await customer.open()
    over = customer.deal.leaf.cap + 1
    customer.pay(over)
    assert isinstance(await customer.wire.refused(messages.Paid), VoucherOverCap)
    signed = customer.deal.voucher(over, network=customer.devnet.network, signer=customer.account.signer)
    with pytest.raises(TransactionReverted, match="OverCap"):
        await Escrow(chain, TransactionSender(chain, customer.account.signer)).redeem(
            [customer.deal.redemption(signed)]
        )
    assert await escrow.claimed(customer.deal.tranche.id, customer.node.account) == 0


async def test_a_voucher_for_another_node_or_by_another_account_is_forged(customer: Customer) -> None:
    await customer.open()
    customer.pay(5, payee=customer.devnet.nodes[1])
    assert isinstance(await customer.wire.refused(messages.Paid), VoucherForged)
    customer.pay(5, signer=customer.devnet.client)
    assert isinstance(await customer.wire.refused(messages.Paid), VoucherForged)


async def test_an_older_voucher_is_stale_and_the_newest_is_acknowledged_again(customer: Customer) -> None:
    await customer.open()
    for _ in range(2):
        customer.pay(7)
        assert int.from_bytes((await customer.wire.expect(messages.Paid)).cumulative, "big") == 7
    customer.pay(6)
    error = await customer.wire.refused(messages.Paid)
    assert isinstance(error, VoucherStale)
    assert (error.known, error.offered) == (7, 6)


async def test_a_client_cannot_take_back_what_it_promised(customer: Customer, chain: Chain, escrow: Escrow) -> None:
    await customer.open()
    customer.pay(int(customer.deal.leaf.cap))
    await customer.wire.expect(messages.Paid)
    own = Escrow(chain, TransactionSender(chain, customer.account.signer))
    with pytest.raises(TransactionReverted, match="TrancheStillOpen"):
        await own.reclaim(customer.deal.tranche.id)
    with pytest.raises(TransactionReverted, match="InsufficientFree"):
        await own.withdraw_free(Nectar(1))
