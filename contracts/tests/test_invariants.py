"""The invariants of protocol.md section 1, held against a model in Python over random histories.

People deposit, open tranches (honest and malformed ones, by themselves or by a session key), sign, redeem, replay,
reorder, reclaim, withdraw; time passes. After every step the money adds up, nobody was paid beyond a cap or a total,
and every payee that holds a good voucher of an open tranche can still redeem all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from brownie import accounts, chain
from walk import seeds, walk
from world import DAY, ONE_NECTAR, THAW_DELAY, fee_of, now, reverts

from corolla_core.protocol.sumtree import SumNode, hash_pair

PAYERS, KEY, PAYEES, NOBODY = (1, 2), 3, (4, 5, 6), 8
START = 1_000 * ONE_NECTAR


@dataclass
class Held:
    """What Python says of one tranche."""

    chain: Any
    payer: int
    signer: int
    total: int
    caps: dict[int, int]
    provable: set[int]
    """payees whose leaf the root proves: all of them, in an honest tree"""
    siblings: dict[int, list[Any]]
    claimed: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PAYEES, 0))
    best: dict[int, list[Any]] = field(default_factory=dict)
    """payee → the largest voucher it holds"""
    reclaimed: bool = False

    @property
    def redeemed(self) -> int:
        return sum(self.claimed.values())


class EscrowMachine:
    def __init__(self, world):
        self.world = world
        world.stake(4)
        self.free = dict.fromkeys(PAYERS, START)
        self.credit = dict.fromkeys(PAYEES, 0)
        self.withdrawn = self.paid_out = self.fees = self.burned = 0
        self.deposited = START * len(PAYERS)
        self.tranches: list[Held] = []
        self.past: list[list[Any]] = []
        for payer in PAYERS:  # so that money flows from the first step on, in amounts whose fees are rounded
            self._open(payer, (99_991, 49_999, 7_919), None)

    def draw_amount(self, rng):
        return rng.randint(1, 400_000)

    def draw_caps(self, rng):
        caps = [rng.choice([0, 1, 120, rng.randint(1, 120_000)]) for _ in PAYEES]
        return caps if any(caps) else [1, 0, 0]

    def draw_payer(self, rng):
        return rng.choice(PAYERS)

    def draw_payee(self, rng):
        return rng.choice(PAYEES)

    def draw_pick(self, rng):
        return rng.choice([0, 1, rng.getrandbits(16)])

    def draw_part(self, rng):
        """Percent of a cap; vouchers above it are tried too."""
        return rng.randint(0, 115)

    def draw_flag(self, rng):
        return rng.random() < 0.5

    def draw_jump(self, rng):
        return rng.choice([60, 3_000, DAY // 4, DAY // 2])

    # ---- what payers do ----

    def rule_deposit(self, payer, amount):
        self.world.fund(payer, amount)
        self.free[payer] += amount
        self.deposited += amount

    def rule_withdraw_free(self, payer, amount):
        self.world.escrow.withdrawFree(accounts[9], amount, {"from": accounts[payer]})
        self.free[payer] -= amount
        self.withdrawn += amount

    def rule_open(self, payer, caps):
        self._open(payer, caps, None)

    def rule_open_by_session_key(self, caps):
        self.world.escrow.authorizeSigner(accounts[KEY], 2**127, now() + 30 * DAY, {"from": accounts[1]})
        self._open(1, caps, KEY)

    def rule_thaw_and_try_to_revoke(self):
        """Whatever a payer does with its key, vouchers stay good (see the invariant)."""
        session = self.world.escrow.session(accounts[1], accounts[KEY])
        if session["expiry"] and not session["thawedAt"]:
            self.world.escrow.thawSigner(accounts[KEY], {"from": accounts[1]})
        elif session["thawedAt"] and now() > max(session["lastClose"], session["thawedAt"]) + THAW_DELAY:
            self.world.escrow.revokeSigner(accounts[KEY], {"from": accounts[1]})

    def rule_open_malformed(self, payer, amount):
        """A tree that hides its right leaf's sum: the total covers the left leaf alone."""
        left, right = (self.world.harness.hashLeaf(accounts[payee], amount) for payee in PAYEES[:2])
        left, hidden = SumNode(bytes(left[0]), amount), SumNode(bytes(right[0]), 0)
        opened = self.world.open_root(payer, hash_pair(left, hidden))
        siblings = {PAYEES[0]: [[hidden.hash, 0]], PAYEES[1]: [[left.hash, amount]]}
        caps = dict.fromkeys(siblings, amount)
        self._keep(Held(opened, payer, payer, amount, caps, {PAYEES[0]}, siblings))

    def rule_sign(self, pick, payee, part):
        """The payer pays a payee; the payee keeps the voucher if it is larger than what it has."""
        if not self.tranches:
            return
        held = self.tranches[pick % len(self.tranches)]
        cumulative = held.caps.get(payee, 0) * part // 100
        if payee not in held.provable or cumulative > held.caps[payee]:
            return
        if payee not in held.best or cumulative > held.best[payee][0][2]:
            held.best[payee] = self._item(held, payee, cumulative)

    # ---- what payees do ----

    def rule_redeem(self, pick, payee, part):
        if not self.tranches:
            return
        held = self.tranches[pick % len(self.tranches)]
        if payee not in held.caps:
            return
        cumulative = held.caps[payee] * part // 100
        item = self._item(held, payee, cumulative)
        bad = now() > held.chain.closes_at or cumulative > held.caps[payee] or payee not in held.provable
        if cumulative > held.claimed[payee] and bad:
            with reverts("(TrancheClosed|OverCap|ProofInvalid)"):
                self.world.redeem(item)
            return
        self.world.redeem(item)
        self._claimed(held, payee, cumulative)
        self.past.append(item)

    def rule_redeem_all_held_in_one_batch(self):
        items = []
        for held in self.tranches:
            if now() > held.chain.closes_at - 30:
                continue
            for payee, item in held.best.items():
                items.append(item)
                self._claimed(held, payee, item[0][2])
        self.world.redeem(*items)
        self.past += items

    def rule_redeem_in_steps(self, pick, payee, part):
        for share in (part // 3, part // 2, part):
            self.rule_redeem(pick, payee, share)

    def rule_replay(self, pick, flag):
        """Anything ever redeemed, again, in any order: a no-op."""
        some = self.past[pick % (len(self.past) + 1) :][:5]
        tx = self.world.redeem(*(reversed(some) if flag else some))
        assert tx.return_value == 0

    def rule_withdraw_payee(self, payee):
        if self.credit[payee] == 0:
            with reverts("NothingToWithdraw"):
                self.world.escrow.withdrawPayee(accounts[9], {"from": accounts[payee]})
            return
        self.world.escrow.withdrawPayee(accounts[9], {"from": accounts[payee]})
        self.paid_out += self.credit[payee]
        self.credit[payee] = 0

    # ---- what anyone does ----

    def rule_reclaim(self, pick):
        if not self.tranches:
            return
        held = self.tranches[pick % len(self.tranches)]
        if held.reclaimed or now() <= held.chain.closes_at + 2:
            with reverts("(AlreadyReclaimed|TrancheStillOpen)"):
                self.world.escrow.reclaim(held.chain.id, {"from": accounts[NOBODY]})
            return
        self.world.escrow.reclaim(held.chain.id, {"from": accounts[NOBODY]})
        held.reclaimed = True
        self.free[held.payer] += held.total - held.redeemed

    def rule_burn(self):
        self.world.escrow.burnFees({"from": accounts[NOBODY]})
        self.burned = self.fees

    def rule_pass_time(self, jump):
        chain.sleep(jump)
        chain.mine()

    # ---- what must hold ----

    def invariant_the_money_adds_up(self):
        escrow = self.world.escrow
        free = [escrow.freeBalance(accounts[i]) for i in PAYERS]
        credit = [escrow.payeeBalance(accounts[i]) for i in PAYEES]
        assert free == list(self.free.values())
        assert credit == list(self.credit.values())
        assert escrow.burnPending() == self.fees - self.burned
        locked = sum(held.total - held.redeemed for held in self.tranches if not held.reclaimed)
        held = self.world.token.balanceOf(escrow)
        assert held == sum(free) + sum(credit) + locked + self.fees - self.burned
        assert self.deposited == self.withdrawn + self.paid_out + self.burned + held

    def invariant_claims_stay_within_caps_and_totals(self):
        for held in self.tranches[-3:]:
            stored = self.world.escrow.tranche(held.chain.id)
            claims = {payee: self.world.escrow.claimed(held.chain.id, accounts[payee]) for payee in held.caps}
            assert claims == {payee: held.claimed[payee] for payee in held.caps}
            assert all(claims[payee] <= cap for payee, cap in held.caps.items())
            assert stored["redeemed"] == sum(claims.values()) <= stored["total"] == held.total

    def invariant_a_good_voucher_of_an_open_tranche_is_worth_all_it_says(self):
        for held in self.tranches[-3:]:
            if now() > held.chain.closes_at - 5:
                continue
            for payee, item in held.best.items():
                cumulative, claimed = item[0][2], held.claimed[payee]
                if cumulative > claimed:
                    worth = cumulative - claimed - fee_of(cumulative) + fee_of(claimed)
                    assert self.world.escrow.redeem.call([item], {"from": accounts[payee]}) == worth

    # ---- internals ----

    def _open(self, payer, caps, by):
        caps = {payee: cap for payee, cap in zip(PAYEES, caps, strict=True) if cap}
        opened = self.world.open(payer, caps, by=by)
        proofs = {payee: opened.tree.proof(index).siblings for index, payee in enumerate(caps)}
        siblings = {payee: [[node.hash, node.sum] for node in branch] for payee, branch in proofs.items()}
        signer = payer if by is None else by
        self._keep(Held(opened, payer, signer, sum(caps.values()), caps, set(caps), siblings))

    def _keep(self, held):
        self.free[held.payer] -= held.total
        self.tranches.append(held)

    def _item(self, held, payee, cumulative):
        index = list(held.caps).index(payee)
        return self.world.item(
            held.chain,
            payee,
            cumulative,
            by=held.signer,
            cap=held.caps[payee],
            index=index,
            siblings=held.siblings[payee],
        )

    def _claimed(self, held, payee, cumulative):
        before = held.claimed[payee]
        if cumulative > before:
            fee = fee_of(cumulative) - fee_of(before)
            held.claimed[payee] = cumulative
            self.credit[payee] += cumulative - before - fee
            self.fees += fee


@pytest.mark.parametrize("seed", seeds(examples_a_walk=13))
def test_the_escrow_keeps_its_promises_over_any_history(world, seed):
    walk(EscrowMachine(world), Random(seed), steps=60)
