"""Refunds out of what a proven fault takes: to whom, how much, never twice, and what a liar has of them."""

from __future__ import annotations

import pytest
from brownie import accounts, chain
from faults_world import OUTPUT, RESPONSE_TIME, REWARD_BPS, WEIGHTS_BPS, Work, add_faults, deploy_faults
from jury_world import CLIENT, FAULTY, JURORS, NODE, OWNER, SEAT_STAKE, deploy_jury
from world import FEE_BPS, LOCK_BPS, MIN_STAKE, ONE_NECTAR, PARAMETERS, fee_of, reverts

from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.span import Span

OTHER, NOBODY = 6, 8
REFUND_BPS = 2_000
PAID = 8 * ONE_NECTAR
NET = PAID - fee_of(PAID)
BACK = Span(4, 12)
X = Hash32(b"\x0e" * 32)


@pytest.fixture(scope="module")
def deployed(module_isolation, project):
    world = deploy_faults(project, accounts[0])
    for node in (NODE, OTHER):
        world.stake(node)
    world.fund(CLIENT, 1_000 * ONE_NECTAR)
    return world


@pytest.fixture
def work(world):
    """A session of the node with three receipts; `fork` forks it at the second."""
    return session_of(NODE)


def session_of(node):
    session = Work(node, BACK)
    for pos in (0, 4, 8):
        session.chunk(pos)
    return session


def fork(work):
    return work.receipts[1], work.forge(1, out_root=X)


def paid_for(world, node, head):
    return world.redeem_with(node, head.receipt.hash()), head


def taken_in(tx):
    return tx.events["FaultPunished"]["amount"]


def refund_in(tx):
    """What a transaction refunded; None when it refunded nobody."""
    return tx.events["ClientRefunded"]["amount"] if "ClientRefunded" in tx.events else None


def wealth(world, account):
    """All that is an account's: in its wallet, in the escrow, at stake."""
    free, earned = world.escrow.freeBalance(accounts[account]), world.escrow.payeeBalance(accounts[account])
    return world.token.balanceOf(accounts[account]) + free + earned + world.stake_of(account)


# ---- what is refunded ----


def test_the_client_gets_back_what_the_node_kept_of_its_money_and_the_reward_stays_what_it_was(world, work):
    tranche = world.redeem_with(NODE, work.receipts[1].receipt.hash(), PAID)
    supply = world.token.totalSupply()
    tx = world.prove_fork(*fork(work), paid=(tranche, work.receipts[1]))
    reward = MIN_STAKE * REWARD_BPS // 10_000
    assert world.token.balanceOf(accounts[CLIENT]) == NET
    assert world.token.balanceOf(accounts[NOBODY]) == reward
    assert world.token.balanceOf(world.faults) == 0
    assert world.token.totalSupply() == supply - (MIN_STAKE - reward - NET)
    event = tx.events["ClientRefunded"]
    assert (bytes(event["trancheId"]), event["node"]) == (tranche, accounts[NODE])
    assert (event["client"], event["amount"]) == (accounts[CLIENT], NET)
    assert world.registry.refunded(tranche, accounts[NODE]) == NET


@pytest.mark.parametrize("head", range(3))
def test_any_receipt_of_the_session_is_a_head_that_shows_the_payment(world, work, head):
    tranche = world.redeem_with(NODE, work.receipts[head].receipt.hash(), PAID)
    assert refund_in(world.prove_fork(*fork(work), paid=(tranche, work.receipts[head]))) == NET


def test_a_broken_link_refunds_the_client_of_the_one_who_broke_it(world):
    upstream = Work(OTHER, Span(0, 4))
    first = upstream.chunk(0)
    work = Work(NODE, BACK, session=upstream.session)
    broken = work.chunk(0, upstream=first)
    assert broken.receipt.in_root != first.receipt.out_root
    tranche = world.redeem_with(NODE, broken.receipt.hash(), PAID)
    assert refund_in(world.prove_link(broken, first, paid=(tranche, broken))) == NET


def test_false_weights_refund_the_client_of_the_session_shown(world, work):
    false = work.forge(weight_root=X)
    tranche = world.redeem_with(NODE, false.receipt.hash(), PAID)
    assert refund_in(world.prove_weights(false, paid=(tranche, false))) == NET


def test_a_withheld_opening_refunds_the_client_it_was_withheld_from(world, work):
    tranche = world.redeem_with(NODE, work.receipts[-1].receipt.hash(), PAID)
    challenge = world.challenge(work, 0, 2, OUTPUT, tranche).events["OpeningChallenged"]["challengeId"]
    chain.sleep(RESPONSE_TIME + 60)
    tx = world.faults.expireOpening(challenge, {"from": accounts[NOBODY]})
    assert refund_in(tx) == taken_in(tx) * REFUND_BPS // 10_000 == world.token.balanceOf(accounts[CLIENT]) < NET


def test_a_refund_is_at_most_a_fifth_of_what_is_taken(world, work):
    tranche = world.redeem_with(NODE, work.receipts[1].receipt.hash(), 90 * ONE_NECTAR)
    tx = world.prove_fork(*fork(work), paid=(tranche, work.receipts[1]))
    assert refund_in(tx) == MIN_STAKE * world.faults.REFUND_BPS() // 10_000 == MIN_STAKE // 5


def test_the_largest_reward_and_the_largest_refund_are_what_the_registry_lets_go(world, work):
    most = world.faults.MAX_REWARD_BPS() + world.faults.REFUND_BPS()
    assert most == world.registry.MAX_REWARD_BPS() == 5_000
    world.registry.addStake(accounts[NODE], 7, {"from": world.rich(NODE, 7)})  # a stake that divides by nothing
    tranche = world.redeem_with(NODE, work.receipts[1].receipt.hash(), 90 * ONE_NECTAR)
    world.prove_fork(*fork(work), paid=(tranche, work.receipts[1]))
    assert world.stake_of(NODE) == 0


# ---- what is not ----


def test_a_payment_that_does_not_hold_is_ignored_and_stops_no_proof(world, work):
    mine = work.receipts[1]
    elsewhere = session_of(NODE)
    reopened = work.forge(client_nonce=b"\1" * 32)
    others = Work(OTHER, BACK, session=work.session)
    others.nonce = work.nonce
    others.chunk(0)
    pays = {
        "nothing": None,
        "a tranche nobody opened": (X, mine),
        "another receipt than was redeemed with": (world.redeem_with(NODE, mine.receipt.hash()), work.receipts[0]),
        "a head that is no receipt": (world.redeem_with(NODE, X), mine),
        "a tranche the node never redeemed on": (world.open(CLIENT, {NODE: ONE_NECTAR}).id, mine),
        "another session": paid_for(world, NODE, elsewhere.receipts[0]),
        "another nonce": paid_for(world, NODE, reopened),
        "another node": paid_for(world, OTHER, others.receipts[0]),
    }
    for paid in pays.values():
        chain.snapshot()
        tx = world.prove_fork(*fork(work), paid=paid)
        assert (refund_in(tx), taken_in(tx)) == (None, MIN_STAKE)
        assert world.token.balanceOf(accounts[CLIENT]) == 0
        chain.revert()
    assert refund_in(world.prove_fork(*fork(work), paid=paid_for(world, NODE, mine))) == 995


def test_a_node_that_redeems_anew_while_the_proof_is_on_its_way_is_put_out_all_the_same(world, work):
    tranche = world.open(CLIENT, {NODE: ONE_NECTAR})
    world.redeem(world.item(tranche, NODE, 1_000, head=work.receipts[1].receipt.hash()))
    world.redeem(world.item(tranche, NODE, 1_001, head=X))
    tx = world.prove_fork(*fork(work), paid=(tranche.id, work.receipts[1]))
    assert (refund_in(tx), world.stake_of(NODE)) == (None, 0)


def test_nothing_is_refunded_where_nothing_was_taken(world, work):
    world.registry.slash(accounts[NODE], MIN_STAKE, accounts[0], 0, bytes(32), {"from": accounts[0]})
    tranche = world.redeem_with(NODE, work.receipts[1].receipt.hash(), PAID)
    assert refund_in(world.prove_fork(*fork(work), paid=(tranche, work.receipts[1]))) is None
    assert world.registry.refunded(tranche, accounts[NODE]) == 0


# ---- never twice ----


def test_no_payment_is_refunded_twice_however_many_faults_it_is_named_for(world, work):
    false = work.forge(weight_root=X)
    tranche = world.redeem_with(NODE, false.receipt.hash(), 20 * ONE_NECTAR)
    kept = 20 * ONE_NECTAR - fee_of(20 * ONE_NECTAR)
    taken = MIN_STAKE * WEIGHTS_BPS // 10_000
    assert refund_in(world.prove_weights(false, paid=(tranche, false))) == taken // 5
    assert refund_in(world.prove_fork(*fork(work), paid=(tranche, false))) == kept - taken // 5
    world.registry.addStake(accounts[NODE], MIN_STAKE, {"from": world.rich(NODE, MIN_STAKE)})
    tx = world.prove_fork(work.receipts[0], work.forge(0, out_root=X), paid=(tranche, false))
    assert (taken_in(tx), refund_in(tx)) == (MIN_STAKE, 0)
    assert world.token.balanceOf(accounts[CLIENT]) == world.registry.refunded(tranche, accounts[NODE]) == kept


def test_what_is_paid_after_a_refund_can_be_refunded_too(world, work):
    false = work.forge(weight_root=X)
    tranche = world.open(CLIENT, {NODE: ONE_NECTAR})
    world.redeem(world.item(tranche, NODE, 1_000, head=false.receipt.hash()))
    assert refund_in(world.prove_weights(false, paid=(tranche.id, false))) == 995
    world.redeem(world.item(tranche, NODE, 3_000, head=false.receipt.hash()))
    assert refund_in(world.prove_fork(*fork(work), paid=(tranche.id, false))) == 1_990


@pytest.fixture(scope="module")
def judged(module_isolation, project):
    """Both judges over one registry: the proofs and the jury."""
    jury = deploy_jury(project, accounts[0])
    jury.stake(NODE, owner=OWNER)
    jury.fund(CLIENT, 1_000 * ONE_NECTAR)
    for juror in JURORS:
        jury.join(juror, 10 * SEAT_STAKE)
    return add_faults(project, accounts[0], jury), jury


@pytest.mark.parametrize("proof_first", [True, False])
def test_a_jury_and_a_proof_do_not_refund_the_same_payment(judged, fn_isolation, proof_first):
    world, jury = judged
    work = session_of(NODE)
    head = work.receipts[1]
    tranche = world.redeem_with(NODE, head.receipt.hash(), PAID)
    id_ = jury.accuse(receipt=head.receipt.hash(), tranche=tranche, harm=100 * ONE_NECTAR)
    if proof_first:
        assert refund_in(world.prove_fork(*fork(work), paid=(tranche, head))) == NET
        world.registry.addStake(accounts[NODE], MIN_STAKE, {"from": world.rich(NODE, MIN_STAKE)})
    jury.jury_votes(id_, FAULTY)
    jury.conclude(id_)
    if proof_first:
        assert jury.credit(CLIENT) == fee_of(PAID)  # a jury refunds the fee as well, and no more than that was left
    else:
        assert jury.credit(CLIENT) == PAID
        assert refund_in(world.prove_fork(*fork(work), paid=(tranche, head))) == 0
    assert world.registry.refunded(tranche, accounts[NODE]) == PAID
    assert world.token.balanceOf(accounts[CLIENT]) + jury.credit(CLIENT) == PAID


def test_only_who_may_slash_books_refunds(world):
    with reverts("AccessControlUnauthorizedAccount"):
        world.registry.bookRefund(X, accounts[NODE], 5, 5, {"from": accounts[NOBODY]})
    for (paid, most), left in (((5, 3), 3), ((5, 3), 2), ((5, 3), 0), ((4, 3), 0), ((9, 3), 3)):
        assert world.registry.bookRefund.call(X, accounts[NODE], paid, most, {"from": accounts[0]}) == left
        tx = world.registry.bookRefund(X, accounts[NODE], paid, most, {"from": accounts[0]})
        assert tx.events["RefundBooked"]["amount"] == left
    assert world.registry.refunded(X, accounts[NODE]) == 8


# ---- the liar that is everybody ----


@pytest.mark.parametrize("fee_bps", [FEE_BPS, 0])
@pytest.mark.parametrize("paid", [PAID, 90 * ONE_NECTAR], ids=["little", "much"])
def test_a_liar_that_is_its_own_client_and_accuser_loses_half_at_least(world, work, fee_bps, paid):
    world.govern(world.escrow, world.escrow.setParameters.encode_input((fee_bps, LOCK_BPS, *PARAMETERS[2:])))
    world.fund(NODE, paid)
    before = wealth(world, NODE)
    tranche = world.open(NODE, {NODE: paid})
    world.redeem(world.item(tranche, NODE, paid, by=NODE, head=work.receipts[1].receipt.hash()))
    tx = world.prove_fork(*fork(work), paid=(tranche.id, work.receipts[1]), by=NODE)
    fee = fee_of(paid, fee_bps)
    refund = min(paid - fee, MIN_STAKE // 5)
    assert refund_in(tx) == refund
    lost = before - wealth(world, NODE)
    assert lost == MIN_STAKE - MIN_STAKE * REWARD_BPS // 10_000 - refund + fee >= MIN_STAKE // 2
