"""Redeeming: never at a loss, never twice, and a store that was cut off anywhere ends with all its money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from corolla_core.protocol.errors import ChainUnreachable, TransactionReverted
from corolla_core.protocol.ids import ZERO_HASH, Address, TrancheId, address
from corolla_core.protocol.sumtree import Leaf, SumProof
from corolla_core.protocol.units import Nectar, UnixTime, Wei
from corolla_core.protocol.voucher import SignedVoucher, Voucher
from corolla_core.store.records import KeptVoucher
from corolla_node.redeemer import MAX_BATCH, TRANSACTION_GAS, VOUCHER_GAS, Redeemer, Thrift, worth_redeeming

pytestmark = pytest.mark.anyio
ME = address(b"\x01" * 20)
NOW = UnixTime(1_000_000)


def kept(number: int, cumulative: int, claimed: int = 0, expires_in: int = 10**6) -> KeptVoucher:
    voucher = Voucher(TrancheId(number.to_bytes(32, "big")), ME, Nectar(cumulative), ZERO_HASH)
    leaf, expiry = Leaf(ME, Nectar(cumulative)), UnixTime(NOW + expires_in)
    return KeptVoucher(SignedVoucher(voucher, bytes(65)), leaf, SumProof(0, ()), Nectar(claimed), expiry, NOW)


amounts = st.integers(0, 10**9)
vouchers = st.lists(st.tuples(amounts, amounts, st.integers(-10, 10**5)), max_size=60).map(
    lambda rows: [kept(n, max(a, b), min(a, b), e) for n, (a, b, e) in enumerate(rows)]
)


@given(vouchers=vouchers, gas_price=st.integers(0, 5000), final=st.booleans())
@settings(deadline=None)
def test_no_batch_costs_more_than_it_brings(vouchers: list[KeptVoucher], gas_price: int, final: bool) -> None:
    thrift = Thrift(gas_value=1_000_000)
    chosen = worth_redeeming(vouchers, gas_price=Wei(gas_price), thrift=thrift, now=NOW, final=final)
    each, whole = VOUCHER_GAS * gas_price, TRANSACTION_GAS * gas_price
    assert len(chosen) <= MAX_BATCH
    assert all(voucher.due > each for voucher in chosen)
    gain = sum(voucher.due for voucher in chosen)
    if chosen:
        assert gain > whole + each * len(chosen)
        if not final and all(v.expiry is not None and v.expiry > NOW + thrift.horizon for v in chosen):
            assert gain > thrift.patience * (whole + each * len(chosen))
    elif final:
        paying = sorted((v.due for v in vouchers if v.due > each), reverse=True)[:MAX_BATCH]
        assert sum(paying) <= whole + each * len(paying)


@given(vouchers=vouchers)
def test_free_gas_makes_every_amount_worth_redeeming(vouchers: list[KeptVoucher]) -> None:
    chosen = worth_redeeming(vouchers, gas_price=Wei(10**12), thrift=Thrift(gas_value=0), now=NOW)
    assert len(chosen) == min(MAX_BATCH, sum(voucher.due > 0 for voucher in vouchers))


def test_a_tranche_about_to_end_is_redeemed_before_it_is_patiently_worth_it() -> None:
    cost = (TRANSACTION_GAS + VOUCHER_GAS) * 10
    for expires_in, redeemed in ((10**6, False), (3600, True)):
        voucher = kept(1, 2 * cost, expires_in=expires_in)
        chosen = worth_redeeming([voucher], gas_price=Wei(10), thrift=Thrift(), now=NOW)
        assert bool(chosen) is redeemed


@dataclass
class Escrow:
    """A chain that pays each (tranche, payee) up to its best voucher once, and may fail before or after it did."""

    rng: Random
    paid: dict[TrancheId, int] = field(default_factory=dict)
    transfers: int = 0
    bad: set[TrancheId] = field(default_factory=set)
    flaky: bool = True

    async def gas_price(self) -> Wei:
        return Wei(1)

    async def claimed(self, tranche_id: TrancheId, payee: Address) -> Nectar:
        self._maybe_fail()
        return Nectar(self.paid.get(tranche_id, 0))

    async def redeem(self, vouchers: Sequence[KeptVoucher]) -> None:
        self._maybe_fail()
        if any(kept.signed.voucher.tranche_id in self.bad for kept in vouchers):
            raise TransactionReverted(reason="TrancheClosed")
        for kept in vouchers:
            voucher = kept.signed.voucher
            gained = max(0, voucher.cumulative - self.paid.get(voucher.tranche_id, 0))
            self.paid[voucher.tranche_id] = self.paid.get(voucher.tranche_id, 0) + gained
            self.transfers += gained
        self._maybe_fail()  # mined, but nobody heard

    def _maybe_fail(self) -> None:
        if self.flaky and self.rng.random() < 0.3:
            raise ChainUnreachable("no answer")


@dataclass
class Store:
    held: dict[TrancheId, KeptVoucher] = field(default_factory=dict)

    async def unredeemed(self) -> list[KeptVoucher]:
        return [voucher for voucher in self.held.values() if voucher.due]

    async def redeemed(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None:
        known = self.held[tranche_id]
        self.held[tranche_id] = replace(known, claimed=Nectar(max(known.claimed, claimed)))

    async def claimed(self, expiring_from: UnixTime) -> list[KeptVoucher]:
        return [v for v in self.held.values() if v.claimed and (v.expiry is None or v.expiry >= expiring_from)]

    async def unredeemed_again(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None:
        self.held[tranche_id] = replace(self.held[tranche_id], claimed=claimed)


class Redeeming(RuleBasedStateMachine):
    """Vouchers come in, redemptions fail at any point, the node is killed and started again on the same store."""

    def __init__(self) -> None:
        super().__init__()
        self.chain, self.store = Escrow(Random(0)), Store()
        self.start()

    @rule()
    def start(self) -> None:
        thrift = Thrift(gas_value=0)
        self.redeemer = Redeemer(self.chain, self.store, clock=lambda: float(NOW), thrift=thrift)

    @rule(tranche=st.integers(0, 4), more=st.integers(1, 100))
    def earn(self, tranche: int, more: int) -> None:
        key = TrancheId(tranche.to_bytes(32, "big"))
        known = self.store.held.get(key)
        before, claimed = (known.signed.voucher.cumulative, known.claimed) if known else (0, 0)
        self.store.held[key] = kept(tranche, before + more, claimed)

    @rule(tranche=st.integers(0, 4))
    def spoil(self, tranche: int) -> None:
        self.chain.bad = {TrancheId(tranche.to_bytes(32, "big"))}

    @rule()
    def redeem(self) -> None:
        drive(self.redeemer)

    @invariant()
    def nothing_is_claimed_twice_or_beyond_what_was_promised(self) -> None:
        promised = {key: voucher.signed.voucher.cumulative for key, voucher in self.store.held.items()}
        assert all(paid <= promised[key] for key, paid in self.chain.paid.items())
        assert self.chain.transfers == sum(self.chain.paid.values())
        assert all(voucher.claimed <= self.chain.paid.get(key, 0) for key, voucher in self.store.held.items())

    def teardown(self) -> None:
        """Once the chain is well and the node restarted, everything promised is paid."""
        self.chain.flaky, self.chain.bad = False, set()
        self.start()
        drive(self.redeemer)
        assert self.chain.paid == {key: v.signed.voucher.cumulative for key, v in self.store.held.items()}
        assert not [voucher for voucher in self.store.held.values() if voucher.due]


def drive(redeemer: Redeemer) -> None:
    """Run a coroutine that never really waits."""
    coroutine = redeemer.redeem()
    try:
        coroutine.send(None)
    except (StopIteration, ChainUnreachable):
        return
    raise AssertionError("the redeemer waits for something that is not there")


def test_every_promise_is_paid_once_whatever_fails_in_between() -> None:
    run_state_machine_as_test(Redeeming, settings=settings(max_examples=100, stateful_step_count=30, deadline=None))


async def test_one_bad_voucher_does_not_hold_the_others_money() -> None:
    chain, store = Escrow(Random(0), flaky=False), Store()
    for number in range(3):
        store.held[TrancheId(number.to_bytes(32, "big"))] = kept(number, 100)
    bad = TrancheId((1).to_bytes(32, "big"))
    chain.bad = {bad}
    redeemer = Redeemer(chain, store, clock=lambda: float(NOW), thrift=Thrift(gas_value=0))
    assert await redeemer.redeem() == 200
    assert bad not in chain.paid
    assert await redeemer.redeem(final=True) == 0
