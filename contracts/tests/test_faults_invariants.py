"""Over random histories tokens are conserved, and nobody's calls convict a node that was honest.

Two honest nodes sign sessions together (chained, linked, rolled back, recomputed, restarted) and answer every
challenge; a crooked one signs forks and false weights, stays silent, and is its own client now and then. Accusers bring
everything anybody ever signed and was paid for, in any combination and with any lie about it that needs no signature.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

import pytest
from brownie import accounts, chain
from brownie.exceptions import VirtualMachineError
from faults_world import (
    BLOCKS,
    BOND,
    CONFIG_ROOT,
    FOREVER,
    FRONT_ROOT,
    HEAD_ROOT,
    MANIFEST,
    OPENING_AGE,
    RESPONSE_TIME,
    Work,
    deploy_faults,
    manifest_root,
    no_fault,
    sent,
    shown,
    words,
)
from walk import seeds, walk
from world import MIN_STAKE, ONE_NECTAR, fee_of, signer

from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.receipt import NumericClass, SignedReceipt
from corolla_core.protocol.span import Span

CLIENT, UPSTREAM, DOWNSTREAM, CROOK = 1, 4, 5, 6
HONEST, ACCUSERS = (UPSTREAM, DOWNSTREAM), (7, 8)
FRONT, BACK = Span(0, 4), Span(4, 12)
X = Hash32(b"\x0e" * 32)


@pytest.fixture(scope="module")
def deployed(module_isolation, project):
    world = deploy_faults(project, accounts[0])
    for payer in (CLIENT, CROOK):
        world.fund(payer, 100 * MIN_STAKE)
    for node in (*HONEST, CROOK):
        world.stake(node)
    return world


class Machine:
    def __init__(self, world):
        self.world, self.faults, self.token = world, world.faults, world.token
        self.honest: list[Work] = []
        self.crooked: list[Work] = []
        self.paid: list[tuple[Work, int, bytes]] = []
        self.open: dict[str, tuple[Work, int, int, int]] = {}
        self.burned = 0
        self.refunds: dict[tuple[bytes, str], int] = {}
        for account in (*ACCUSERS, CROOK):
            self.token.transfer(accounts[account], 100 * BOND, {"from": accounts[0]})
            for spender in (self.faults, self.world.registry):
                self.token.approve(spender, 2**255, {"from": accounts[account]})
        for name, blocks in (("evil", [X]), ("evil", list(BLOCKS))):
            world.publish(name, manifest_root(), blocks, [NumericClass.NF4], by=7)
        self.supply, self.held = self.token.totalSupply(), self.everything()
        self.rule_serve(0)
        self.rule_cheat(0)

    # ---- what is drawn ----

    def draw_by(self, rng):
        return rng.choice(ACCUSERS)

    def draw_rng(self, rng):
        return Random(rng.random())

    def draw_pos(self, rng):
        return rng.randrange(8)

    def draw_jump(self, rng):
        return rng.choice([60, RESPONSE_TIME + 60, RESPONSE_TIME + 60, OPENING_AGE // 2, 2 * OPENING_AGE])

    # ---- what nodes do ----

    def rule_serve(self, pos):
        """Two honest nodes compute the same positions, the second on the first one's rows."""
        if pos % 3 == 0 or not self.honest:
            up = Work(UPSTREAM, FRONT)
            self.honest += [up, Work(DOWNSTREAM, BACK, session=up.session)]
        up, down = self.honest[-2:]
        first = up.chunk(pos, 3)
        down.chunk(pos, 3, upstream=first if pos % 2 else None, inputs=up.rows[-1][1])

    def rule_be_paid(self, rng):
        work = rng.choice((self.honest + self.crooked[-1:])[-5:])
        self.pay(work, rng.randrange(len(work.receipts)), rng.choice([1_000, ONE_NECTAR]), by=CLIENT)

    def rule_deal_with_oneself(self, rng):
        self.pay(self.crooked[-1], rng.randrange(3), rng.choice([1_000, ONE_NECTAR]), by=CROOK)

    def rule_stake_again(self):
        self.world.registry.addStake(accounts[CROOK], ONE_NECTAR, {"from": accounts[CROOK]})

    def pay(self, work, head, amount, *, by):
        tranche = self.world.redeem_with(work.node, work.receipts[head].receipt.hash(), amount, by=by)
        self.paid.append((work, head, tranche))

    def rule_cheat(self, pos):
        work = Work(CROOK, BACK)
        work.chunk(pos)
        work.receipts.append(work.forge(0, out_root=X))
        work.receipts.append(work.forge(0, weight_root=X, prev_receipt_hash=X))
        work.rows += 2 * [work.rows[0]]
        self.crooked.append(work)

    def rule_answer(self, rng):
        """An honest node answers what it can; only the deadline can have passed, and here it never has."""
        for challenge, (work, index, position, side) in list(self.open.items()):
            if work.node in HONEST:
                answer = work.opening(index, position, side)
                sent(self.faults.open, challenge, *answer, by=rng.choice(ACCUSERS))
                del self.open[challenge]

    # ---- what accusers do ----

    def rule_accuse(self, rng, by):
        signed = [each for work in self.honest + self.crooked for each in work.receipts]
        a, b = rng.choice(signed), rng.choice(signed)
        lie = rng.choice([self.as_it_is, self.other_words, self.other_signature])
        paid = self.payment(rng, a)
        proof = rng.choice(
            [
                lambda: self.world.prove_fork(lie(a), lie(b), paid=paid, by=by),
                lambda: self.world.prove_link(lie(a), lie(b), paid=paid, by=by),
                lambda: self.world.prove_weights(lie(a), *rng.choice(self.versions()), paid=paid, by=by),
            ]
        )
        self.attempt(proof)

    def rule_accuse_neighbours(self, rng, by):
        """The likeliest pairs: of one session."""
        work = rng.choice(self.honest[-4:] + self.crooked[-2:])
        other = rng.choice([each for each in self.honest + self.crooked if each.session == work.session])
        a, b = rng.choice(work.receipts), rng.choice(other.receipts)
        paid = self.payment(rng, a)
        self.attempt(lambda: self.world.prove_fork(a, b, paid=paid, by=by))
        self.attempt(lambda: self.world.prove_link(a, b, paid=paid, by=by))

    def payment(self, rng, proof):
        """Mostly one for the proof's session, where there is one."""
        of_session = [paid for paid in self.paid if paid[0].session == proof.receipt.session_id]
        candidates = of_session if of_session and rng.random() < 0.8 else self.paid
        if not candidates:
            return None
        work, head, tranche = rng.choice(candidates)
        return tranche, work.receipts[head]

    def rule_challenge(self, rng, by):
        if not self.paid:
            return
        work, head, tranche = rng.choice(self.paid[-4:])
        index, side = rng.randrange(head + 1), rng.randrange(2)
        receipt = work.receipts[index].receipt
        position = receipt.pos_start + rng.randrange(receipt.n_pos)
        later = [words(signed.receipt) for signed in reversed(work.receipts[index + 1 : head + 1])]
        asked = (*shown(work.receipts[index]), position, side, tranche, later)
        tx = self.attempt(lambda: sent(self.faults.challengeOpening, *asked, by=by))
        if tx is not None:
            challenge = tx.events["OpeningChallenged"]["challengeId"].hex()
            self.open["0x" + challenge.removeprefix("0x")] = (work, index, position, side)

    def rule_expire(self, rng):
        for challenge in list(self.open):
            tx = self.attempt(partial(sent, self.faults.expireOpening, challenge, by=rng.choice(ACCUSERS)))
            if tx is not None:
                del self.open[challenge]

    def rule_pass_time(self, rng, jump):
        """Honest nodes answer before the deadline, whatever else they do."""
        self.rule_answer(rng)
        chain.sleep(jump)
        chain.mine()

    # ---- lies that need no signature ----

    def as_it_is(self, signed):
        return signed

    def other_words(self, signed):
        return SignedReceipt(replace(signed.receipt, out_root=X), signed.signature)

    def other_signature(self, signed):
        return signed.receipt.sign(signer(ACCUSERS[0]))

    def versions(self):
        names = [MANIFEST, ("evil", CONFIG_ROOT, FRONT_ROOT, HEAD_ROOT)]
        return [(version, manifest) for version in (1, 2) for manifest in names]

    def attempt(self, call):
        """The transaction; None when it reverted."""
        try:
            tx = call()
        except VirtualMachineError:
            return None
        if "FaultPunished" in tx.events:
            event = tx.events["FaultPunished"]
            assert event["node"] == accounts[CROOK]
            refunds = list(tx.events["ClientRefunded"]) if "ClientRefunded" in tx.events else []
            refunded = sum(refund["amount"] for refund in refunds)
            assert event["reward"] + refunded <= event["amount"] // 2
            self.burned += event["amount"] - event["reward"] - refunded
            for refund in refunds:
                key = (bytes(refund["trancheId"]), refund["node"])
                self.refunds[key] = self.refunds.get(key, 0) + refund["amount"]
        return tx

    def everything(self):
        holders = [*accounts[:12], self.faults, self.world.registry, self.world.escrow]
        return sum(self.token.balanceOf(holder) for holder in holders)

    # ---- what always holds ----

    def invariant_no_honest_node_loses_stake_or_its_place(self):
        for node in HONEST:
            assert self.world.stake_of(node) == MIN_STAKE
            assert self.world.jailed_until(node) == 0

    def invariant_no_client_gets_back_more_than_the_node_kept_of_its_money(self):
        for (tranche, node), refunded in self.refunds.items():
            claimed = self.world.escrow.claimed(tranche, node)
            assert refunded == self.world.registry.refunded(tranche, node) <= claimed - fee_of(claimed)
        assert self.token.balanceOf(accounts[CLIENT]) == sum(
            refunded
            for (tranche, _), refunded in self.refunds.items()
            if self.world.escrow.tranche(tranche)["payer"] == accounts[CLIENT]
        )

    def invariant_every_token_is_accounted_for(self):
        assert self.token.balanceOf(self.faults) == BOND * len(self.open)
        assert self.token.totalSupply() == self.supply - self.burned
        assert self.everything() == self.held - self.burned


@pytest.mark.parametrize("seed", seeds(examples_a_walk=13))
def test_tokens_are_conserved_and_no_honest_node_is_convicted(world, seed):
    machine = Machine(world)
    walk(machine, Random(seed), steps=40)
    machine.rule_cheat(0)
    fork = machine.crooked[-1]
    machine.rule_stake_again()
    machine.pay(fork, 0, 1_000, by=CLIENT)
    paid = (machine.paid[-1][2], fork.receipts[0])
    before = world.token.balanceOf(accounts[CLIENT])
    assert machine.attempt(lambda: world.prove_fork(*fork.receipts[:2], paid=paid)) is not None
    assert world.jailed_until(CROOK) == FOREVER
    assert world.token.balanceOf(accounts[CLIENT]) == before + 1_000 - fee_of(1_000)
    machine.invariant_no_client_gets_back_more_than_the_node_kept_of_its_money()
    machine.invariant_every_token_is_accounted_for()


def test_every_pair_of_receipts_honest_nodes_sign_proves_nothing(world):
    machine = Machine(world)
    for pos in (0, 1, 1, 2, 4, 5, 3):
        machine.rule_serve(pos)
    signed = [each for work in machine.honest for each in work.receipts]
    for a in signed:
        for b in signed:
            for name, prove in (("equivocation", world.prove_fork), ("broken link", world.prove_link)):
                with no_fault(name):
                    prove(a, b)
        with no_fault("false weights"):
            world.prove_weights(a)
