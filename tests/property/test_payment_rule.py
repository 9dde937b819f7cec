"""The node's payment rule: whatever a client orders, pays and re-orders, one chunk at most is ever unpaid."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corolla_core.protocol.errors import (
    InvalidInput,
    InvalidProof,
    PriceTooLow,
    TrancheExpired,
    VoucherForged,
    VoucherOverCap,
    VoucherStale,
    VoucherTooSmall,
    VoucherWrongPayee,
)
from corolla_core.protocol.ids import ZERO_HASH, TrancheId, address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.sumtree import Leaf, SumNode, SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import Voucher
from corolla_node import ledger
from corolla_node.ledger import Account, Terms

ME, PAYER, SESSION_KEY, STRANGER = (address(bytes([n]) * 20) for n in (1, 2, 3, 4))
TRANCHE = TrancheId(b"t" * 32)
CAP, EXPIRY, CREDIT = Nectar(1000), UnixTime(5000), Nectar(80)
TERMS = Terms(TRANCHE, ME, frozenset({PAYER, SESSION_KEY}), CAP, EXPIRY)


def voucher(amount: int, payee: str = ME) -> Voucher:
    return Voucher(TRANCHE, address(payee), Nectar(amount), ZERO_HASH)


@dataclass
class FakeSession:
    """Steps of one session that are held, in the order they began."""

    held: list[Nectar] = field(default_factory=list)


class PaymentRule(RuleBasedStateMachine):
    """Two sessions draw on one tranche in any interleaving of steps, failures, payments and replays of old vouchers."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account()
        self.sessions = [FakeSession(), FakeSession()]
        self.done = 0
        self.best = 0
        self.charged_before = 0

    @rule(which=st.integers(0, 1), cost=st.integers(0, 300))
    def order(self, which: int, cost: int) -> None:
        before = self.account
        try:
            self.account = ledger.hold(before, Nectar(cost), credit=CREDIT)
        except VoucherTooSmall as error:
            refused = error
        else:
            self.sessions[which].held.append(Nectar(cost))
            return
        assert refused.offered == self.best
        # Paying exactly what is owed unlocks the step, one unit less does not.
        ledger.hold(Account(before.held, before.charged, refused.owed), Nectar(cost), credit=CREDIT)
        with pytest.raises(VoucherTooSmall):
            ledger.hold(Account(before.held, before.charged, refused.owed - 1), Nectar(cost), credit=CREDIT)

    @precondition(lambda self: any(session.held for session in self.sessions))
    @rule(data=st.data(), computed=st.booleans())
    def finish(self, data: st.DataObject, computed: bool) -> None:
        session = data.draw(st.sampled_from([s for s in self.sessions if s.held]))
        cost = session.held.pop(0)
        if computed:
            self.account = ledger.charge(self.account, cost)
            self.done += cost
        else:
            self.account = ledger.let_go(self.account, cost)

    @rule(amount=st.integers(0, 1200), signer=st.sampled_from([PAYER, SESSION_KEY, STRANGER]))
    def pay(self, amount: int, signer: str) -> None:
        try:
            self.account = ledger.check_voucher(
                self.account, TERMS, voucher(amount), signer=address(signer), now=UnixTime(1)
            )
        except VoucherForged:
            assert signer == STRANGER
        except VoucherOverCap:
            assert amount > CAP
        except VoucherStale:
            assert amount <= self.best
        else:
            assert self.best < amount <= CAP
            assert signer != STRANGER
            self.best = amount

    @invariant()
    def never_more_than_one_chunk_is_unpaid(self) -> None:
        held = sum(sum(session.held) for session in self.sessions)
        assert self.done + held - self.best <= CREDIT
        assert self.account.unpaid <= CREDIT

    @invariant()
    def charged_is_exactly_the_work_computed_and_never_falls(self) -> None:
        assert self.account.charged == self.done >= self.charged_before
        self.charged_before = self.done

    @invariant()
    def paid_is_the_best_voucher(self) -> None:
        assert self.account.paid == self.best


TestPaymentRule = PaymentRule.TestCase
TestPaymentRule.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(amount=st.integers(0, CAP))
def test_each_bad_voucher_has_its_own_error(amount: int) -> None:
    account = Account(paid=Nectar(amount))

    def offer(offered: Voucher, *, signer: str = PAYER, now: int = 1) -> Account:
        return ledger.check_voucher(account, TERMS, offered, signer=address(signer), now=UnixTime(now))

    with pytest.raises(VoucherStale) as stale:
        offer(voucher(amount))
    assert (stale.value.known, stale.value.offered) == (amount, amount)
    with pytest.raises(VoucherForged) as forged:
        offer(voucher(amount + 1), signer=STRANGER)
    assert forged.value.signer == STRANGER
    with pytest.raises(VoucherWrongPayee):
        offer(voucher(amount + 1, payee=STRANGER))
    with pytest.raises(VoucherOverCap) as over:
        offer(voucher(CAP + 1))
    assert (over.value.cap, over.value.offered) == (CAP, CAP + 1)
    with pytest.raises(TrancheExpired):
        offer(voucher(amount + 1), now=EXPIRY)


def test_a_step_that_was_not_held_can_be_neither_charged_nor_let_go() -> None:
    account = ledger.hold(Account(), Nectar(5), credit=CREDIT)
    for change in (ledger.charge, ledger.let_go):
        with pytest.raises(InvalidInput):
            change(account, Nectar(6))


@given(caps=st.lists(st.integers(0, 10**6), min_size=1, max_size=5), seconds=st.integers(0, 2000))
def test_a_tranche_is_taken_only_with_its_true_branch_and_time_left(caps: list[int], seconds: int) -> None:
    leaves = [Leaf(address(bytes([n + 1]) * 20), Nectar(cap)) for n, cap in enumerate(caps)]
    tree = SumTree(leaves)

    def check(*, root: SumNode = tree.root, leaf: Leaf = leaves[0], now: int = EXPIRY - 2000) -> None:
        ledger.check_tranche(
            root=root, expiry=EXPIRY, leaf=leaf, proof=tree.proof(0), payee=ME, now=UnixTime(now), margin=600
        )

    check()
    with pytest.raises(InvalidProof):
        check(leaf=Leaf(ME, Nectar(caps[0] + 1)))
    with pytest.raises(InvalidProof):
        check(root=SumNode(tree.root.hash, tree.root.sum + 1))
    with pytest.raises(VoucherWrongPayee):
        check(leaf=Leaf(STRANGER, Nectar(caps[0])))
    if seconds < 600:
        with pytest.raises(TrancheExpired):
            check(now=EXPIRY - seconds)
    else:
        check(now=EXPIRY - seconds)


@given(asked=st.integers(0, 10**9), offered=st.integers(0, 10**9))
def test_only_a_price_below_the_asked_one_is_refused(asked: int, offered: int) -> None:
    if offered >= asked:
        ledger.check_price(asked=Price(asked), offered=Price(offered))
    else:
        with pytest.raises(PriceTooLow):
            ledger.check_price(asked=Price(asked), offered=Price(offered))
