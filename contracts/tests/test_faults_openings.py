"""Openings: a node shows the rows it signed and was paid for, or pays for its silence."""

from __future__ import annotations

import pytest
from brownie import accounts, chain
from faults_world import (
    BOND,
    INPUT,
    JAIL,
    OPENING_AGE,
    OPENING_BPS,
    OUTPUT,
    RESPONSE_TIME,
    REWARD_BPS,
    Work,
    deploy_faults,
    fault,
    high_s,
    sent,
    shown,
    words,
)
from world import MIN_STAKE, fee_of, now, pass_time, reverts

from corolla_core.protocol.ids import ZERO_HASH, Hash32
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.span import Span

CLIENT, NODE, OTHER, HELPER, CHALLENGER = 1, 4, 5, 7, 8
X = Hash32(b"\x0e" * 32)
MAX_ROW = 98_304


@pytest.fixture(scope="module")
def deployed(module_isolation, project):
    world = deploy_faults(project, accounts[0])
    world.fund(1, MIN_STAKE)
    for node in (NODE, OTHER):
        world.stake(node)
    return world


@pytest.fixture
def work(world):
    """A session of three receipts: 5, 1 and 4 positions."""
    session = Work(NODE, Span(4, 12))
    session.chunk(0, 5)
    session.chunk(5, 1)
    session.chunk(6, 4)
    return session


@pytest.fixture
def tranche(world, work):
    """What the node was paid on, with the session's last receipt."""
    return world.redeem_with(NODE, work.receipts[-1].receipt.hash())


def challenge_of(tx):
    return tx.events["OpeningChallenged"]["challengeId"]


def balance(world, index):
    return world.token.balanceOf(accounts[index])


# ---- answered ----


def test_every_row_of_every_receipt_can_be_asked_for_and_opened(world, work, tranche):
    for index, signed in enumerate(work.receipts):
        first = signed.receipt.pos_start
        for position in range(first, first + signed.receipt.n_pos):
            for side in (INPUT, OUTPUT):
                challenge = challenge_of(world.challenge(work, index, position, side, tranche))
                row, branch = work.opening(index, position, side)
                tx = sent(world.faults.open, challenge, row, branch, by=NODE)
                assert bytes(tx.events["OpeningAnswered"]["row"]) == row
    assert balance(world, NODE) == 20 * BOND
    assert (balance(world, CHALLENGER), world.token.balanceOf(world.faults)) == (0, 0)
    assert world.stake_of(NODE) == MIN_STAKE


def test_the_bond_is_the_nodes_whoever_answers_for_it(world, work, tranche):
    challenge = challenge_of(world.challenge(work, 0, 2, OUTPUT, tranche))
    assert world.token.balanceOf(world.faults) == BOND
    sent(world.faults.open, challenge, *work.opening(0, 2, OUTPUT), by=HELPER)
    assert (balance(world, NODE), balance(world, HELPER), world.token.balanceOf(world.faults)) == (BOND, 0, 0)


def test_an_answer_is_the_row_itself_at_its_own_place(world, work, tranche):
    challenge = challenge_of(world.challenge(work, 0, 2, OUTPUT, tranche))
    row, branch = work.opening(0, 2, OUTPUT)
    for answer in (
        (row + b"\0", branch),
        (row[:-1], branch),
        (b"", branch),
        (row, branch[:-1]),
        (row, [*branch, bytes(32)]),
        (row, branch[::-1]),
        work.opening(0, 2, INPUT),
        work.opening(0, 3, OUTPUT),
        work.opening(2, 6, OUTPUT),
    ):
        with reverts("OpeningInvalid"):
            sent(world.faults.open, challenge, *answer, by=NODE)
    with reverts("RowTooLarge", MAX_ROW, MAX_ROW + 1):
        sent(world.faults.open, challenge, bytes(MAX_ROW + 1), branch, by=NODE)
    sent(world.faults.open, challenge, row, branch, by=NODE)


def test_the_largest_row_can_be_opened(world):
    work = Work(NODE, Span(4, 12))
    work.chunk(0, 2, inputs=[b"\xa5" * MAX_ROW, b"\x5a"])
    challenge = challenge_of(
        world.challenge(work, 0, 0, INPUT, world.redeem_with(NODE, work.receipts[0].receipt.hash()))
    )
    tx = sent(world.faults.open, challenge, *work.opening(0, 0, INPUT), by=NODE)
    assert len(bytes(tx.events["OpeningAnswered"]["row"])) == MAX_ROW


def test_a_row_is_asked_for_once(world, work, tranche):
    challenge = challenge_of(world.challenge(work, 0, 2, OUTPUT, tranche))
    with reverts("ChallengeExists", 1):
        world.challenge(work, 0, 2, OUTPUT, tranche, by=HELPER)
    sent(world.faults.open, challenge, *work.opening(0, 2, OUTPUT), by=NODE)
    with reverts("ChallengeExists", 2):
        world.challenge(work, 0, 2, OUTPUT, tranche)
    with reverts("ChallengeNotOpen", 2):
        sent(world.faults.open, challenge, *work.opening(0, 2, OUTPUT), by=NODE)
    with reverts("ChallengeNotOpen", 2):
        world.faults.expireOpening(challenge, {"from": accounts[CHALLENGER]})
    world.challenge(work, 0, 2, INPUT, tranche)


def test_what_nobody_asked_for_is_neither_opened_nor_expired(world, work):
    with reverts("ChallengeNotOpen", 0):
        sent(world.faults.open, X, *work.opening(0, 2, OUTPUT), by=NODE)
    with reverts("ChallengeNotOpen", 0):
        world.faults.expireOpening(X, {"from": accounts[CHALLENGER]})


# ---- what may be asked for ----


def test_only_paid_work_is_opened(world, work):
    with reverts("NotRedeemed", accounts[NODE].address.lower()):
        world.challenge(work, 0, 2, OUTPUT, bytes(32))
    without = world.redeem_with(NODE, ZERO_HASH)
    with reverts("NotRedeemed"):
        world.challenge(work, 0, 2, OUTPUT, without)
    others = world.redeem_with(OTHER, work.receipts[-1].receipt.hash())
    with reverts("NotRedeemed", accounts[NODE].address.lower()):
        world.challenge(work, 0, 2, OUTPUT, others)
    early = world.redeem_with(NODE, work.receipts[0].receipt.hash())
    with reverts("ChainBroken"):
        world.challenge(work, 1, 5, OUTPUT, early)
    world.challenge(work, 0, 2, OUTPUT, early, later=[])


def test_the_chain_from_the_head_is_whole(world, work, tranche):
    later = work.later(0)
    forged = list(later[1])
    forged[15] = X  # its out_root
    for wrong in ([], later[:1], later[1:], later[::-1], [*later, later[-1]], [later[0], forged]):
        with reverts("ChainBroken"):
            world.challenge(work, 0, 2, OUTPUT, tranche, later=wrong)
    with reverts("ChainTooLong", 256, 257):
        world.challenge(work, 0, 2, OUTPUT, tranche, later=[later[0]] * 257)
    world.challenge(work, 0, 2, OUTPUT, tranche, later=later)


@pytest.mark.parametrize(("index", "position"), [(0, 5), (1, 4), (1, 6), (2, 5), (2, 10), (2, 2**64 - 1)])
def test_a_row_outside_the_receipt_is_not_asked_for(world, work, tranche, index, position):
    with reverts("PositionOutOfRange", position):
        world.challenge(work, index, position, OUTPUT, tranche)


def test_a_challenge_needs_the_nodes_signature_the_chain_and_the_time(world, work, tranche):
    last = work.receipts[2]
    with reverts("NotRegistered"):
        world.challenge(work, 2, 6, OUTPUT, tranche, signed=work.forge(by=HELPER))
    with reverts("ECDSAInvalidSignatureS"):
        world.challenge(work, 2, 6, OUTPUT, tranche, signed=SignedReceipt(last.receipt, high_s(last.signature)))
    with reverts("WrongChain"):
        world.challenge(work, 2, 6, OUTPUT, tranche, signed=work.forge(chain_id=2))
    with reverts("ChainBroken"):
        world.challenge(work, 2, 6, OUTPUT, tranche, signed=work.forge(out_root=X))
    chain.mine(timestamp=last.receipt.t_out // 1000 + OPENING_AGE + 1)
    with reverts("ReceiptTooOld"):
        world.challenge(work, 2, 6, OUTPUT, tranche)


def test_a_challenge_without_its_bond_is_none(world, work, tranche):
    arguments = (*shown(work.receipts[2]), 6, OUTPUT, tranche, [])
    with reverts("ERC20InsufficientAllowance"):
        sent(world.faults.challengeOpening, *arguments, by=CHALLENGER)
    world.token.approve(world.faults, BOND, {"from": accounts[CHALLENGER]})
    with reverts("ERC20InsufficientBalance"):
        sent(world.faults.challengeOpening, *arguments, by=CHALLENGER)


# ---- not answered ----


def test_silence_costs_a_little_stake_and_a_jailing(world, work, tranche):
    tx = world.challenge(work, 0, 2, OUTPUT, tranche)
    challenge, deadline = challenge_of(tx), tx.events["OpeningChallenged"]["deadline"]
    assert deadline == tx.timestamp + RESPONSE_TIME
    supply, paid_in = world.token.totalSupply(), balance(world, CLIENT)
    pass_time(deadline + 1)
    tx = world.faults.expireOpening(challenge, {"from": accounts[HELPER]})
    amount = MIN_STAKE * OPENING_BPS // 10_000
    reward = amount * REWARD_BPS // 10_000
    assert tx.return_value == amount == MIN_STAKE - world.stake_of(NODE)
    assert balance(world, CHALLENGER) == BOND + reward
    assert (balance(world, HELPER), balance(world, NODE), world.token.balanceOf(world.faults)) == (0, 0, 0)
    refund = 1_000 - fee_of(1_000)
    assert balance(world, CLIENT) == paid_in + refund
    assert world.token.totalSupply() == supply - (amount - reward - refund)
    assert world.jailed_until(NODE) == tx.timestamp + JAIL
    assert bytes(tx.events["FaultPunished"]["fault"]) == fault("withheld opening")
    assert tx.events["FaultPunished"]["challenger"] == accounts[CHALLENGER]
    assert tx.events["OpeningExpired"]["punished"]
    with reverts("ChallengeNotOpen", 3):
        world.faults.expireOpening(challenge, {"from": accounts[HELPER]})
    with reverts("ChallengeNotOpen", 3):
        sent(world.faults.open, challenge, *work.opening(0, 2, OUTPUT), by=NODE)
    with reverts("ChallengeExists", 3):
        world.challenge(work, 0, 2, OUTPUT, tranche)


def test_the_deadline_divides_answering_from_expiring(world, work, tranche):
    tx = world.challenge(work, 0, 2, OUTPUT, tranche)
    challenge, deadline = challenge_of(tx), tx.events["OpeningChallenged"]["deadline"]
    answer = work.opening(0, 2, OUTPUT)
    pass_time(deadline)
    world.faults.open.call(challenge, *answer, {"from": accounts[NODE]})
    with reverts("DeadlineNotPassed", deadline):
        world.faults.expireOpening.call(challenge, {"from": accounts[CHALLENGER]})
    pass_time(deadline + 1)
    with reverts("DeadlinePassed", deadline):
        world.faults.open.call(challenge, *answer, {"from": accounts[NODE]})
    world.faults.expireOpening.call(challenge, {"from": accounts[CHALLENGER]})


def test_an_outage_is_punished_once_however_many_rows_were_asked_for(world, work, tranche):
    rows = [(0, position, side) for position in range(5) for side in (INPUT, OUTPUT)]
    challenges = [challenge_of(world.challenge(work, *row, tranche)) for row in rows]
    chain.sleep(RESPONSE_TIME + 60)
    for challenge in challenges[:-1]:
        world.faults.expireOpening(challenge, {"from": accounts[HELPER]})
    during = challenge_of(world.challenge(work, 2, 6, OUTPUT, tranche))
    chain.sleep(JAIL + 60)
    for challenge in (challenges[-1], during):
        tx = world.faults.expireOpening(challenge, {"from": accounts[HELPER]})
        assert not tx.events["OpeningExpired"]["punished"]
        assert tx.return_value == 0
    amount = MIN_STAKE * OPENING_BPS // 10_000
    assert world.stake_of(NODE) == MIN_STAKE - amount
    assert balance(world, CHALLENGER) == 11 * BOND + amount * REWARD_BPS // 10_000


def test_silence_after_the_jailing_is_punished_anew_for_the_same_rows_too(world, work, tranche):
    first, second = (challenge_of(world.challenge(work, 0, position, OUTPUT, tranche)) for position in (1, 2))
    chain.sleep(RESPONSE_TIME + 60)
    world.faults.expireOpening(first, {"from": accounts[HELPER]})
    world.faults.expireOpening(second, {"from": accounts[HELPER]})
    left = world.stake_of(NODE)
    chain.sleep(JAIL + 60)
    again = challenge_of(world.challenge(work, 0, 2, OUTPUT, tranche))
    assert again == second
    chain.sleep(RESPONSE_TIME + 60)
    assert world.faults.expireOpening(again, {"from": accounts[HELPER]}).return_value == left * OPENING_BPS // 10_000


def test_a_node_without_stake_does_not_keep_the_bond(world, work, tranche):
    challenge = challenge_of(world.challenge(work, 0, 2, OUTPUT, tranche))
    world.prove_fork(work.receipts[1], work.forge(1, out_root=X), by=HELPER)
    chain.sleep(RESPONSE_TIME + 60)
    tx = world.faults.expireOpening(challenge, {"from": accounts[HELPER]})
    assert (tx.return_value, balance(world, CHALLENGER)) == (0, BOND)
    assert world.jailed_until(NODE) == 2**64 - 1


def test_new_terms_do_not_change_a_challenge_under_way(world, work, tranche):
    tx = world.challenge(work, 0, 2, OUTPUT, tranche)
    before = tuple(world.faults.challenge(challenge_of(tx)))
    parameters = list(world.faults.parameters())
    parameters[2], parameters[7] = 1, 1
    world.govern(world.faults, world.faults.setParameters.encode_input(parameters))
    assert tuple(world.faults.challenge(challenge_of(tx))) == before
    world.faults.open(challenge_of(tx), *work.opening(0, 2, OUTPUT), {"from": accounts[NODE]})
    assert balance(world, NODE) == BOND


def test_a_challenge_says_all_there_is_to_know(world, work, tranche):
    tx = world.challenge(work, 0, 3, INPUT, tranche)
    receipt = work.receipts[0].receipt
    entry = world.faults.challenge(challenge_of(tx))
    assert (entry["challenger"], entry["node"]) == (accounts[CHALLENGER], accounts[NODE])
    assert (entry["openedAt"], entry["deadline"], entry["state"]) == (tx.timestamp, tx.timestamp + RESPONSE_TIME, 1)
    assert (bytes(entry["sessionId"]), bytes(entry["root"])) == (work.session, receipt.in_root)
    assert (entry["position"], entry["index"], entry["size"], entry["bond"]) == (3, 3, 5, BOND)
    assert bytes(entry["trancheId"]) == tranche
    assert bytes(world.faults.receiptHash(words(receipt))) == bytes(tx.events["OpeningChallenged"]["receiptHash"])
    assert now() < entry["deadline"]
