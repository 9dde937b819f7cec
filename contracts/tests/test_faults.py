"""Faults that a signature proves: what is one, what is none, and what it costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from brownie import accounts, chain
from eth_utils import keccak
from faults_world import (
    FAULT_PARAMETERS,
    FOREVER,
    MAX_AGE,
    REWARD_BPS,
    Work,
    deploy_faults,
    fault,
    high_s,
    no_fault,
    payment,
    sent,
    shown,
    words,
)
from world import DAY, MIN_STAKE, ONE_NECTAR, now, reverts, signer

from corolla_core.protocol.ids import ZERO_HASH, Hash32
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.span import Span

UPSTREAM, NODE, OTHER, NOBODY = 4, 5, 6, 8
FRONT, BACK = Span(0, 4), Span(4, 12)
X = Hash32(b"\x0e" * 32)
NOWHERE = "0x" + "0" * 40


@pytest.fixture(scope="module")
def deployed(module_isolation, project):
    world = deploy_faults(project, accounts[0])
    for node in (UPSTREAM, NODE, OTHER):
        world.stake(node)
    return world


@pytest.fixture
def work(world):
    """A session that the node has signed two receipts in."""
    session = Work(NODE, BACK)
    session.chunk(0)
    session.chunk(4)
    return session


@pytest.fixture
def linked(world):
    """The receipts of two hops over the same positions, the second naming the first."""
    up = Work(UPSTREAM, FRONT)
    first = up.chunk(0)
    down = Work(NODE, BACK, session=up.session)
    second = down.chunk(0, upstream=first, inputs=up.rows[0][1])
    assert first.receipt.out_root == second.receipt.in_root
    return first, second


def assert_out_for_good(world, node):
    assert world.stake_of(node) == 0
    assert world.jailed_until(node) == FOREVER


# ---- equivocation ----


def test_a_fork_costs_everything_and_pays_whoever_shows_it(world, work):
    world.registry.beginUnstake(accounts[NODE], MIN_STAKE // 2, {"from": accounts[NODE]})
    supply, before = world.token.totalSupply(), world.token.balanceOf(accounts[NOBODY])
    tx = world.prove_fork(work.receipts[1], work.forge(out_root=X))
    reward = MIN_STAKE * REWARD_BPS // 10_000
    assert_out_for_good(world, NODE)
    assert world.token.balanceOf(accounts[NOBODY]) == before + reward
    assert world.token.totalSupply() == supply - (MIN_STAKE - reward)
    assert world.token.balanceOf(world.faults) == 0
    event = tx.events["FaultPunished"]
    assert (event["node"], event["challenger"]) == (accounts[NODE], accounts[NOBODY])
    assert (event["amount"], event["reward"], event["until"]) == (MIN_STAKE, reward, FOREVER)
    assert bytes(event["fault"]) == fault("equivocation") == bytes(tx.events["NodeSlashed"]["fault"])
    assert tx.return_value == MIN_STAKE
    assert world.faults.punishedUntil(event["key"]) == FOREVER
    assert [world.stake_of(other) for other in (UPSTREAM, OTHER)] == [MIN_STAKE, MIN_STAKE]


@pytest.mark.parametrize(
    "change",
    [{"in_root": X}, {"pos_start": 9}, {"span": Span(4, 5)}, {"epoch": 1}, {"t_in": 1}],
    ids=lambda c: next(iter(c)),
)
def test_any_difference_makes_a_fork(world, work, change):
    world.prove_fork(work.forge(**change), work.receipts[1])
    assert_out_for_good(world, NODE)


def test_a_fork_at_the_first_receipt_is_one(world, work):
    world.prove_fork(work.receipts[0], work.forge(0, n_pos=3))
    assert_out_for_good(world, NODE)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"session_id": b"\x01" * 16, "out_root": X},
        {"client_nonce": bytes(X), "out_root": X},
        {"prev_receipt_hash": X, "out_root": X},
    ],
    ids=["the same receipt", "another session", "another nonce", "another receipt before it"],
)
def test_what_is_no_fork(world, work, change):
    with no_fault("equivocation"):
        world.prove_fork(work.receipts[1], work.forge(**change))
    assert world.stake_of(NODE) == MIN_STAKE


def test_positions_rolled_back_and_computed_again_are_no_fork(world, work):
    again = work.chunk(4)
    assert again.receipt.out_root != work.receipts[1].receipt.out_root
    for other in work.receipts:
        with no_fault("equivocation"):
            world.prove_fork(again, other)


def test_two_nodes_do_not_make_a_fork_together(world, work):
    with no_fault("equivocation"):
        world.prove_fork(work.receipts[1], work.forge(by=OTHER, out_root=X))


def test_a_signature_that_is_not_the_nodes_convicts_nobody(world, work):
    with reverts("NotRegistered", accounts[NOBODY].address.lower()):
        world.prove_fork(work.receipts[1], work.forge(by=NOBODY, out_root=X))
    fork = work.forge(out_root=X)
    with reverts("ECDSAInvalidSignatureS"):
        world.prove_fork(work.receipts[1], SignedReceipt(fork.receipt, high_s(fork.signature)))
    with reverts("ECDSAInvalidSignatureLength"):
        world.prove_fork(work.receipts[1], SignedReceipt(fork.receipt, fork.signature[:64]))
    # Over other words, the signature recovers to somebody who is no node.
    with reverts("NotRegistered"):
        world.prove_fork(work.receipts[1], SignedReceipt(fork.receipt, work.receipts[1].signature))
    assert world.stake_of(NODE) == MIN_STAKE


def test_receipts_of_another_chain_prove_nothing_here(world, work):
    with reverts("WrongChain", 1337, 1):
        world.prove_fork(work.forge(chain_id=1), work.forge(chain_id=1, out_root=X))


def test_an_old_receipt_proves_nothing_any_more(world, work):
    ended = work.receipts[1].receipt.t_out // 1000
    chain.mine(timestamp=ended + MAX_AGE + 1)
    with reverts("ReceiptTooOld"):
        world.prove_fork(work.receipts[1], work.forge(out_root=X))
    fresh = work.forge(out_root=X, t_out=now() * 1000)
    with reverts("ReceiptTooOld"):
        world.prove_fork(fresh, work.receipts[1])


def test_a_fork_pays_once_whichever_receipts_show_it(world, work):
    a, b, c = work.receipts[1], work.forge(out_root=X), work.forge(in_root=X)
    world.prove_fork(a, b)
    world.registry.addStake(accounts[NODE], ONE_NECTAR, {"from": world.rich(NODE, ONE_NECTAR)})
    for pair in ((a, b), (b, a), (a, c), (c, b)):
        with reverts("AlreadyPunished"):
            world.prove_fork(*pair)


def test_another_fault_of_a_node_out_for_good_takes_what_stake_it_has(world, work):
    world.prove_fork(work.receipts[1], work.forge(out_root=X))
    tx = world.prove_fork(work.receipts[0], work.forge(0, out_root=X))
    assert tx.events["FaultPunished"]["amount"] == 0
    world.registry.addStake(accounts[NODE], ONE_NECTAR, {"from": world.rich(NODE, ONE_NECTAR)})
    elsewhere = Work(NODE, BACK)
    elsewhere.chunk(0)
    tx = world.prove_fork(elsewhere.receipts[0], elsewhere.forge(out_root=X))
    assert tx.events["FaultPunished"]["amount"] == ONE_NECTAR


def test_a_node_that_took_its_stake_out_is_out_for_good_all_the_same(world, work):
    world.registry.beginUnstake(accounts[NODE], MIN_STAKE, {"from": accounts[NODE]})
    chain.sleep(20 * DAY + 1)
    world.registry.withdrawStake(accounts[NODE], {"from": accounts[NODE]})
    last = work.chunk(8)
    tx = world.prove_fork(last, work.forge(out_root=X))
    assert tx.events["FaultPunished"]["amount"] == 0
    assert_out_for_good(world, NODE)


def test_a_node_jailed_for_something_else_is_punished_all_the_same(world, work):
    world.registry.jail(accounts[NODE], now() + 50 * DAY, {"from": accounts[0]})
    world.prove_fork(work.receipts[1], work.forge(out_root=X))
    assert_out_for_good(world, NODE)


# ---- broken links ----


def test_a_link_that_does_not_hold_costs_everything_downstream(world, linked):
    first, second = linked
    broken = replace(second.receipt, in_root=X).sign(signer(NODE))
    tx = world.prove_link(broken, first)
    assert_out_for_good(world, NODE)
    assert world.stake_of(UPSTREAM) == MIN_STAKE
    assert bytes(tx.events["FaultPunished"]["fault"]) == fault("broken link")
    with reverts("AlreadyPunished"):
        world.prove_link(broken, first)


def test_the_upstream_signer_need_not_be_a_node(world, linked):
    first, second = linked
    stranger = first.receipt.sign(signer(NOBODY))
    world.prove_link(replace(second.receipt, in_root=X).sign(signer(NODE)), stranger)
    assert_out_for_good(world, NODE)


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ({}, {}),
        ({}, {"in_root": X, "upstream_receipt_hash": ZERO_HASH}),
        ({}, {"in_root": X, "upstream_receipt_hash": X}),
        ({"span": Span(0, 3)}, {"in_root": X}),
        ({"session_id": b"\x01" * 16}, {"in_root": X}),
        ({"pos_start": 1}, {"in_root": X}),
        ({"n_pos": 3}, {"in_root": X}),
        ({"chain_id": 1}, {"in_root": X}),
    ],
    ids=[
        "a link that holds",
        "no upstream",
        "another upstream receipt",
        "spans that are not adjacent",
        "another session",
        "other positions",
        "another number of positions",
        "another chain",
    ],
)
def test_what_is_no_broken_link(world, linked, up, down):
    first, second = linked
    upstream = replace(first.receipt, **up)
    named = replace(second.receipt, **({"upstream_receipt_hash": upstream.hash()} | down))
    with no_fault("broken link"):
        world.prove_link(named.sign(signer(NODE)), upstream.sign(signer(UPSTREAM)))
    assert world.stake_of(NODE) == MIN_STAKE


def test_a_broken_link_needs_both_signatures_the_chain_and_the_time(world, linked):
    first, second = linked
    broken = replace(second.receipt, in_root=X)
    signed = broken.sign(signer(NODE))
    with reverts("NotRegistered"):
        world.prove_link(broken.sign(signer(NOBODY)), first)
    for error, other in (("ECDSAInvalidSignature", bytes(65)), ("ECDSAInvalidSignatureS", high_s(first.signature))):
        with reverts(error):
            world.prove_link(signed, SignedReceipt(first.receipt, other))
    with reverts("ECDSAInvalidSignatureS"):
        world.prove_link(SignedReceipt(broken, high_s(signed.signature)), first)
    with reverts("WrongChain"):
        world.prove_link(replace(broken, chain_id=2).sign(signer(NODE)), first)
    chain.mine(timestamp=now() + MAX_AGE + 10)
    with reverts("ReceiptTooOld"):
        world.prove_link(signed, first)


# ---- parameters and roles ----

LOWEST = (1, 1, 1, 1, 0, 5_000, 100, 1)
HIGHEST = (60 * DAY, 14 * DAY, 7 * DAY, 30 * DAY, 3_000, 10_000, 1_000, 10_000 * ONE_NECTAR)


def test_governance_sets_parameters_within_their_bounds_and_nobody_else(world):
    for parameters in (LOWEST, HIGHEST):
        world.govern(world.faults, world.faults.setParameters.encode_input(parameters))
        assert tuple(world.faults.parameters()) == parameters
    with reverts("OwnableUnauthorizedAccount"):
        world.faults.setParameters(LOWEST, {"from": accounts[0]})


@pytest.mark.parametrize("index", range(8))
def test_no_parameter_leaves_its_bounds(world, project, index):
    contracts = (world.token, world.registry, world.models, world.escrow, accounts[0])
    faults = accounts[0].deploy(project.Faults, *contracts, LOWEST)
    for bounds, by in ((LOWEST, -1), (HIGHEST, 1)):
        wrong = list(bounds)
        wrong[index] += by
        if wrong[index] < 0:
            continue
        with reverts("OutOfBounds", wrong[index], LOWEST[index], HIGHEST[index]):
            faults.setParameters(wrong, {"from": accounts[0]})


def test_without_its_contracts_it_cannot_be_deployed(world, project):
    for missing in range(4):
        contracts = [world.token, world.registry, world.models, world.escrow]
        contracts[missing] = NOWHERE
        with reverts("AddressIsZero"):
            accounts[0].deploy(project.Faults, *contracts, accounts[0], FAULT_PARAMETERS)


def test_without_its_roles_it_takes_nothing(world, project, work):
    contracts = (world.token, world.registry, world.models, world.escrow, world.timelock)
    faults = accounts[0].deploy(project.Faults, *contracts, FAULT_PARAMETERS)
    fork = work.forge(out_root=X)
    with reverts("AccessControlUnauthorizedAccount"):
        sent(faults.proveEquivocation, *shown(work.receipts[1]), *shown(fork), payment(None, fork), by=0)
    assert world.stake_of(NODE) == MIN_STAKE


def test_keys_are_what_the_interface_says(world, work):
    key = world.faults.faultKey(fault("broken link"), accounts[NODE], X)
    assert bytes(key) == keccak(fault("broken link") + bytes(12) + bytes.fromhex(accounts[NODE].address[2:]) + X)
    made = world.faults.challengeIdOf(X, 3, 1)
    assert bytes(made) == keccak(X + (3).to_bytes(32, "big") + (1).to_bytes(32, "big"))
    assert bytes(world.faults.receiptHash(words(work.receipts[0].receipt))) == work.receipts[0].receipt.hash()
