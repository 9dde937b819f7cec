"""Whatever happens, a wallet never promises more than was ordered, than a cap, or than the user allows."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from corolla.wallet import Purse, Wallet, WalletPolicy, Want, plan_leaves
from corolla_core.protocol.errors import (
    CorollaError,
    InsufficientFunds,
    PeerMisbehaved,
    SpendingLimitExceeded,
    StoreError,
    VoucherOverCap,
    VoucherStale,
)
from corolla_core.protocol.ids import ZERO_HASH, Address, TrancheId, address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.sumtree import SumTree, verify
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import escrow_domain
from corolla_core.store.records import ClientTranche

DOMAIN = escrow_domain(1337, address("0x" + "e5" * 20))
CLIENT = Signer(sha256(b"client").digest())
PAYEES = [address("0x" + f"{i:02x}" * 20) for i in range(1, 5)]
NOW = 1_000_000


class Disk:
    """A store that outlives wallets; `failing` makes writes fail."""

    def __init__(self) -> None:
        self.totals: dict[tuple[TrancheId, Address], int] = {}
        self.kept: list[ClientTranche] = []
        self.failing = False

    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return fn(*args, **kwargs)

    def raise_signed_totals(self, totals: Sequence[tuple[TrancheId, Address, Nectar]]) -> None:
        if self.failing:
            raise StoreError("disk full", reason="full")
        for tranche_id, payee, cumulative in totals:
            known = self.totals.get((tranche_id, payee), 0)
            if known > cumulative:
                raise VoucherStale(known=known, offered=cumulative)
        self.totals |= {(tranche_id, payee): cumulative for tranche_id, payee, cumulative in totals}

    def signed_totals(self, tranche_id: TrancheId) -> dict[Address, Nectar]:
        return {payee: Nectar(n) for (t, payee), n in self.totals.items() if t == tranche_id}

    def tranches(self, payer: Address | None = None, *, open_only: bool = False) -> list[ClientTranche]:
        return list(self.kept)


class Bank:
    def __init__(self, disk: Disk, free: int) -> None:
        self.disk = disk
        self.free = free

    async def free_balance(self) -> Nectar:
        return Nectar(self.free)

    async def open(self, tree: SumTree, expiry: UnixTime) -> ClientTranche:
        assert tree.root.sum <= self.free
        self.free -= tree.root.sum
        identifier = TrancheId(sha256(f"{len(self.disk.kept)}".encode()).digest())
        number = len(self.disk.kept)
        tranche = ClientTranche(identifier, CLIENT.address, CLIENT.address, number, tree.leaves, expiry, ZERO_HASH)
        self.disk.kept.append(tranche)
        return tranche


class Leases:
    def acquire(self, tranche_id: TrancheId) -> bool:
        return True

    def release_all(self) -> None:
        return None


def make_wallet(disk: Disk, bank: Bank, limit: int | None = None, clock: Callable[[], float] = lambda: NOW) -> Wallet:
    return Wallet(
        signer=CLIENT,
        payer=CLIENT.address,
        domain=DOMAIN,
        book=disk,
        runner=disk,
        opener=bank,
        leases=Leases(),
        clock=clock,
        policy=WalletPolicy(limit=None if limit is None else Nectar(limit), headroom=3),
    )


class Spending(RuleBasedStateMachine):
    """Sessions order work, are paid for, end, and the client crashes now and then."""

    purses = Bundle("purses")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.disk = Disk()
        self.bank = Bank(self.disk, 5_000)
        self.limit = 600
        self.wallet = make_wallet(self.disk, self.bank, self.limit)
        self.ordered: dict[tuple[TrancheId, Address], int] = {}
        self.vouchers: dict[tuple[TrancheId, Address], list[int]] = {}
        self.signed_by_earlier_wallets = 0

    def teardown(self) -> None:
        self.loop.close()

    @rule(target=purses, payee=st.sampled_from(PAYEES), need=st.integers(0, 300), spare=st.sampled_from(PAYEES))
    def begin(self, payee: Address, need: int, spare: Address) -> Any:
        wants = [Want(payee, Nectar(need))]
        if spare != payee:
            wants.append(Want(spare, Nectar(need), spare=True))
        before = len(self.disk.kept)
        refused: CorollaError | None = None
        try:
            return self.loop.run_until_complete(self.wallet.reserve(wants))[payee]
        except (SpendingLimitExceeded, InsufficientFunds) as error:
            refused = error
        assert len(self.disk.kept) == before
        if isinstance(refused, InsufficientFunds):
            assert refused.needed > refused.available
        return None

    @rule(purse=purses, cost=st.integers(0, 300))
    def order(self, purse: Purse | None, cost: int) -> None:
        if purse is None or purse.released or not self.alive(purse):
            return
        before = purse.account
        try:
            purse.order(Nectar(cost))
        except (SpendingLimitExceeded, VoucherOverCap):
            assert purse.account == before
            return
        key = (purse.tranche_id, purse.payee)
        self.ordered[key] = self.ordered.get(key, 0) + cost

    @rule(purse=purses, cost=st.integers(0, 300))
    def order_and_cancel(self, purse: Purse | None, cost: int) -> None:
        if purse is None or purse.released or not self.alive(purse):
            return
        before = purse.account
        try:
            reserved = purse.order(Nectar(cost))
        except (SpendingLimitExceeded, VoucherOverCap):
            return
        purse.cancel(Nectar(cost), reserved=reserved)
        assert purse.account == before

    @rule(purse=purses, cost=st.integers(0, 300))
    def set_aside(self, purse: Purse | None, cost: int) -> None:
        if purse is None or purse.released or not self.alive(purse):
            return
        before, limit = purse.account, self.limit
        try:
            purse.set_aside(Nectar(cost))
        except (SpendingLimitExceeded, VoucherOverCap):
            assert purse.account == before
            return
        assert purse.account.reserved >= max(cost, before.reserved)
        self.wallet.policy = replace(self.wallet.policy, limit=Nectar(0))
        reserved = purse.order(Nectar(cost))  # whatever the others have spent or reserved since
        self.wallet.policy = replace(self.wallet.policy, limit=Nectar(limit))
        purse.cancel(Nectar(cost), reserved=reserved)

    @rule(purse=purses)
    def pay(self, purse: Purse | None) -> None:
        if purse is None or not self.alive(purse):
            return
        (signed,) = self.loop.run_until_complete(self.wallet.sign([purse]))
        if signed is None:
            return
        key = (purse.tranche_id, purse.payee)
        assert signed.signer(DOMAIN) == CLIENT.address
        assert signed.voucher.payee == purse.payee
        # On disk before it left.
        assert self.disk.totals[key] == signed.voucher.cumulative
        assert signed.voucher.cumulative > max(self.vouchers.get(key, [0]), default=0)
        self.vouchers.setdefault(key, []).append(signed.voucher.cumulative)

    @rule(purse=purses)
    def pay_on_a_full_disk(self, purse: Purse | None) -> None:
        if purse is None or not self.alive(purse) or not purse.account.unpaid:
            return
        self.disk.failing = True
        try:
            with pytest.raises(StoreError):
                self.loop.run_until_complete(self.wallet.sign([purse]))
        finally:
            self.disk.failing = False

    @rule(purse=consumes(purses))
    def end(self, purse: Purse | None) -> None:
        if purse is not None and self.alive(purse):
            purse.release()

    @rule(purse=purses, share=st.integers(0, 150))
    def learn_what_was_charged(self, purse: Purse | None, share: int) -> None:
        if purse is None or purse.released or not self.alive(purse):
            return
        before = purse.account
        charged = Nectar(before.ordered * share // 100)
        purse.settle_with(paid=before.signed, charged=charged)
        key = (purse.tranche_id, purse.payee)
        taken_back = before.ordered - purse.account.ordered
        assert taken_back >= 0
        self.ordered[key] = self.ordered.get(key, 0) - taken_back

    @precondition(lambda self: self.disk.kept)
    @rule()
    def crash_and_start_again(self) -> None:
        self.signed_by_earlier_wallets = sum(self.disk.totals.values())
        self.wallet = make_wallet(self.disk, self.bank, self.limit)
        self.loop.run_until_complete(self.wallet.load())
        # What was ordered and never promised died with the process; all that was promised counts as spent.
        self.ordered = dict(self.disk.totals)

    def alive(self, purse: Purse) -> bool:
        return purse._wallet is self.wallet

    @invariant()
    def never_more_than_a_cap(self) -> None:
        caps = {(t.tranche_id, leaf.payee): leaf.cap for t in self.disk.kept for leaf in t.leaves}
        for key, amounts in self.vouchers.items():
            assert max(amounts) <= caps[key]

    @invariant()
    def vouchers_only_grow(self) -> None:
        for amounts in self.vouchers.values():
            assert all(a < b for a, b in itertools.pairwise(amounts))

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert sum(self.disk.totals.values()) - self.signed_by_earlier_wallets <= self.limit
        assert self.wallet.committed + self.wallet.reserved <= self.limit

    @invariant()
    def never_more_than_was_ordered(self) -> None:
        for held in self.wallet._held:
            for payee, account in held.accounts.items():
                assert account.ordered == self.ordered.get((held.tranche.tranche_id, payee), 0)
                assert max(account.ordered, account.signed) + account.reserved <= account.cap


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(
    needs=st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    spare=st.integers(0, 1000),
    free=st.integers(0, 20_000),
    most=st.none() | st.integers(0, 5_000),
)
def test_a_planned_tranche_fits_the_deposit_and_every_firm_want(
    needs: list[int], spare: int, free: int, most: int | None
) -> None:
    firm = [Want(payee, Nectar(need)) for payee, need in zip(PAYEES, needs, strict=False)]
    extra = address("0x" + "99" * 20)
    spares = [Want(extra, Nectar(spare), spare=True)]
    if sum(max(1, need) for need in needs) > free:
        with pytest.raises(InsufficientFunds) as caught:
            plan_leaves(firm, spares, free=free, headroom=4, most=most)
        assert caught.value.needed > free
        return
    leaves = plan_leaves(firm, spares, free=free, headroom=4, most=most)
    caps = {leaf.payee: leaf.cap for leaf in leaves}
    assert sum(caps.values()) <= free
    assert all(caps[want.payee] >= want.need for want in firm)
    tree = SumTree(leaves)
    for index, leaf in enumerate(leaves):
        verify(tree.root, leaf, tree.proof(index))


@pytest.mark.anyio
async def test_a_node_that_claims_a_voucher_never_signed_is_found_out() -> None:
    disk = Disk()
    wallet = make_wallet(disk, Bank(disk, 1_000))
    purse = (await wallet.reserve([Want(PAYEES[0], Nectar(100))]))[PAYEES[0]]
    with pytest.raises(PeerMisbehaved):
        purse.settle_with(paid=Nectar(1), charged=Nectar(0))


@pytest.mark.anyio
async def test_prepaid_work_that_was_never_done_is_used_up_before_more_is_promised() -> None:
    disk = Disk()
    wallet = make_wallet(disk, Bank(disk, 1_000))
    want = [Want(PAYEES[0], Nectar(100))]
    first = (await wallet.reserve(want))[PAYEES[0]]
    first.order(Nectar(80))
    await wallet.sign([first])
    first.release()
    second = (await wallet.reserve(want))[PAYEES[0]]
    second.settle_with(paid=Nectar(80), charged=Nectar(50))  # the node died before the last 30
    second.order(Nectar(30))
    assert await wallet.sign([second]) == [None]
    second.order(Nectar(5))
    (signed,) = await wallet.sign([second])
    assert signed is not None
    assert signed.voucher.cumulative == 85


@pytest.mark.anyio
async def test_a_tranche_about_to_expire_is_not_drawn_on() -> None:
    disk, now = Disk(), [float(NOW)]
    wallet = make_wallet(disk, Bank(disk, 10_000), clock=lambda: now[0])
    want = [Want(PAYEES[0], Nectar(100))]
    (await wallet.reserve(want))[PAYEES[0]].release()
    now[0] += wallet.policy.ttl - 60
    (await wallet.reserve(want))[PAYEES[0]].release()
    assert len(disk.kept) == 2


@pytest.mark.anyio
async def test_a_payee_that_claims_more_work_than_was_ordered_changes_nothing() -> None:
    disk = Disk()
    wallet = make_wallet(disk, Bank(disk, 1_000))
    purse = (await wallet.reserve([Want(PAYEES[0], Nectar(100))]))[PAYEES[0]]
    before = purse.account
    purse.settle_with(paid=Nectar(0), charged=Nectar(90))
    assert purse.account == before
    assert await wallet.sign([purse]) == [None]


def test_one_absurdly_dear_spare_does_not_cost_a_tranche_the_others() -> None:
    firm = [Want(PAYEES[0], Nectar(10))]
    spares = [Want(PAYEES[1], Nectar(10**15), spare=True), Want(PAYEES[2], Nectar(12), spare=True)]
    leaves = plan_leaves(firm, spares, free=1000, headroom=4)
    assert [(leaf.payee, leaf.cap) for leaf in leaves] == [(PAYEES[0], 40), (PAYEES[2], 48)]
