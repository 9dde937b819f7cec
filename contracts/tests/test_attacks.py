"""The attacks of protocol.md section 1, each tried."""

from __future__ import annotations

import pytest
from brownie import Contract, accounts, chain
from world import DAY, MIN_STAKE, ONE_NECTAR, PARAMETERS, World, fee_of, pass_time, reverts, signer

from corolla_core.protocol.ids import ZERO_HASH, Address
from corolla_core.protocol.sumtree import Leaf, SumNode, SumTree, hash_leaf, hash_pair
from corolla_core.protocol.units import MAX_UINT128
from corolla_core.protocol.voucher import Voucher

TEN = 10 * ONE_NECTAR
THIEF, VICTIM = 7, 4


def addressed(index):
    return Address(accounts[index].address)


def claim(world, tranche, payee, cumulative, *, cap, index, siblings, by=1):
    """A redemption with a branch made by hand."""
    voucher = Voucher(tranche.id, addressed(payee), cumulative, ZERO_HASH)
    signature = voucher.sign(world.domain, signer(by)).signature
    branch = [[node.hash, node.sum] for node in siblings]
    return [[tranche.id, addressed(payee), cumulative, ZERO_HASH], cap, index, branch, signature]


# ---- sum-tree forgeries: the payer colludes with the thief, who must not get more than the tree's total ----


def test_an_omitted_sum_does_not_hide_a_leaf(world):
    """The victim's leaf is in the tree, but its sum is left out of the parent: total 10 over leaves of 10 and 10."""
    thief, victim = hash_leaf(Leaf(addressed(THIEF), TEN)), hash_leaf(Leaf(addressed(VICTIM), TEN))
    hidden = hash_pair(thief, SumNode(victim.hash, 0))
    tranche = world.open_root(1, hidden)
    world.redeem(claim(world, tranche, THIEF, TEN, cap=TEN, index=0, siblings=[SumNode(victim.hash, 0)]))
    with reverts("ProofInvalid"):
        world.redeem(claim(world, tranche, VICTIM, TEN, cap=TEN, index=1, siblings=[thief]))
    assert world.escrow.tranche(tranche.id)["redeemed"] == TEN


def test_sums_that_overflow_prove_nothing(world):
    """Leaves of 2**128 - 1 and 11 wrap around to a total of 10, were the addition not checked."""
    thief = hash_leaf(Leaf(addressed(THIEF), 11))
    huge = SumNode(hash_leaf(Leaf(addressed(VICTIM), MAX_UINT128)).hash, MAX_UINT128)
    packed = b"\x01" + thief.hash + (11).to_bytes(16, "big") + huge.hash + MAX_UINT128.to_bytes(16, "big")
    from eth_utils import keccak

    tranche = world.open_root(1, SumNode(keccak(packed), (11 + MAX_UINT128) % 2**128))
    with reverts("ProofInvalid"):
        world.redeem(claim(world, tranche, THIEF, 11, cap=11, index=0, siblings=[huge]))
    with reverts("ProofInvalid"):
        world.redeem(claim(world, tranche, VICTIM, 11, cap=MAX_UINT128, index=1, siblings=[thief]))


def test_an_inner_node_does_not_pass_for_a_leaf(world):
    tree = SumTree([Leaf(addressed(i), TEN) for i in (4, 5, 6, 7)])
    tranche = world.open_root(1, tree.root, tree=tree)
    for depth in (0, 1):
        siblings = tree.proof(0).siblings[2 - depth :]
        with reverts("ProofInvalid"):
            world.redeem(claim(world, tranche, 4, 2 * TEN, cap=4 * TEN >> depth, index=0, siblings=list(siblings)))


def test_a_leaf_does_not_pass_for_an_inner_node(world):
    """A single leaf is the root; nothing can be proved below it."""
    tranche = world.open(1, {VICTIM: TEN})
    left, right = SumNode(ZERO_HASH, 0), hash_leaf(Leaf(addressed(VICTIM), TEN))
    for siblings in ([left], [right], [left, right]):
        with reverts("ProofInvalid"):
            world.redeem(claim(world, tranche, THIEF, 1, cap=1, index=0, siblings=siblings))


def test_a_branch_longer_than_any_tree_is_refused(world):
    tranche = world.open(1, {VICTIM: TEN})
    with reverts("ProofInvalid"):
        world.redeem(claim(world, tranche, VICTIM, 1, cap=TEN, index=0, siblings=[SumNode(ZERO_HASH, 0)] * 33))


# ---- timing and repetition ----


def test_a_front_run_redemption_costs_the_payee_nothing(world):
    """Someone copies the payee's transaction and lands first: the payee's own changes nothing and does not revert."""
    tranche = world.open(1, {VICTIM: TEN})
    item = world.item(tranche, VICTIM, TEN)
    world.redeem(item, by=THIEF)
    assert world.redeem(item, by=VICTIM).return_value == 0
    assert world.escrow.payeeBalance(accounts[VICTIM]) == TEN - fee_of(TEN)
    assert world.escrow.payeeBalance(accounts[THIEF]) == 0


def test_a_front_run_with_an_older_voucher_does_not_block_the_newer(world):
    tranche = world.open(1, {VICTIM: TEN})
    world.redeem(world.item(tranche, VICTIM, 3), by=THIEF)
    world.redeem(world.item(tranche, VICTIM, TEN), by=VICTIM)
    assert world.escrow.payeeBalance(accounts[VICTIM]) == TEN - fee_of(TEN)


def test_an_ambiguous_retry_pays_once(world):
    """The payee never learned whether its transaction was mined, and sends the batch again, grown."""
    first, second = world.open(1, {VICTIM: TEN}), world.open(2, {VICTIM: TEN})
    world.redeem(world.item(first, VICTIM, TEN), by=VICTIM)
    world.redeem(world.item(first, VICTIM, TEN), world.item(second, VICTIM, 5, by=2), by=VICTIM)
    assert world.escrow.payeeBalance(accounts[VICTIM]) == TEN - fee_of(TEN) + 5 - fee_of(5)


def test_an_outage_near_expiry_is_outlasted_by_the_grace(world):
    tranche = world.open(1, {VICTIM: TEN})
    item = world.item(tranche, VICTIM, TEN)
    pass_time(tranche.expiry + 1)
    assert world.redeem(item).return_value == TEN - fee_of(TEN)


def test_a_voucher_does_not_replay_on_another_tranche_or_escrow(world, project):
    first, second = world.open(1, {VICTIM: TEN}), world.open(1, {VICTIM: TEN})
    item = world.item(first, VICTIM, TEN)
    moved = [[second.id, *item[0][1:]], *item[1:]]
    with reverts("SignerNotAccepted"):
        world.redeem(moved)
    twin = accounts[0].deploy(project.Escrow, world.token, world.registry, world.timelock, PARAMETERS)
    with reverts("TrancheUnknown"):
        twin.redeem([item], {"from": accounts[8]})


def test_the_payer_cannot_take_the_money_back_before_the_close(world):
    tranche = world.open(1, {VICTIM: TEN})
    free = world.escrow.freeBalance(accounts[1])
    payer = {"from": accounts[1]}
    world.escrow.withdrawFree(accounts[1], free, payer)
    for call in (
        lambda: world.escrow.withdrawFree(accounts[1], 1, payer),
        lambda: world.escrow.reclaim(tranche.id, payer),
        lambda: world.escrow.openTranche(b"\x01" * 32, 1, chain.time() + DAY, payer),
    ):
        with reverts("(InsufficientFree|TrancheStillOpen)"):
            call()
    assert world.redeem(world.item(tranche, VICTIM, TEN)).return_value == TEN - fee_of(TEN)


# ---- dust, self-dealing, stranded money ----


def test_dust_is_paid_exactly_and_rounding_never_favours_either_side(world):
    tranche = world.open(1, {VICTIM: 1_000})
    for cumulative in (1, 2, 3, 199, 200, 201, 399, 400, 1_000):
        world.redeem(world.item(tranche, VICTIM, cumulative))
        assert world.escrow.payeeBalance(accounts[VICTIM]) == cumulative - fee_of(cumulative)
        assert world.escrow.burnPending() == fee_of(cumulative)


def test_paying_oneself_costs_the_fee(world):
    """Farming a reputation by self-dealing burns money each time around."""
    tranche = world.open(1, {1: TEN})
    world.redeem(world.item(tranche, 1, TEN))
    world.escrow.withdrawPayee(accounts[1], {"from": accounts[1]})
    assert world.token.balanceOf(accounts[1]) == TEN - fee_of(TEN) < TEN


def test_no_deposit_is_ever_stranded(world):
    """Unused tranches, used ones, free money: after the close the payer has back all but what it spent."""
    used, unused = world.open(1, {VICTIM: TEN, 5: TEN}), world.open(1, {VICTIM: TEN})
    world.redeem(world.item(used, VICTIM, 3))
    pass_time(unused.closes_at + 1)
    for tranche in (used, unused):
        world.escrow.reclaim(tranche.id, {"from": accounts[1]})
    world.escrow.withdrawFree(accounts[1], 1_000 * ONE_NECTAR - 3, {"from": accounts[1]})
    world.escrow.withdrawPayee(accounts[VICTIM], {"from": accounts[VICTIM]})
    world.escrow.withdrawFree(accounts[2], 1_000 * ONE_NECTAR, {"from": accounts[2]})
    world.escrow.burnFees({"from": accounts[8]})
    assert world.token.balanceOf(world.escrow) == 0


# ---- session keys ----


def test_a_leaked_session_key_costs_at_most_its_cap(world):
    """The thief opens tranches to itself with the payer's key for as long as it can."""
    free = world.escrow.freeBalance(accounts[1])
    world.escrow.authorizeSigner(accounts[3], 100, chain.time() + 10 * DAY, {"from": accounts[1]})
    stolen = [world.open(1, {THIEF: 60}, by=3), world.open(1, {THIEF: 40}, by=3)]
    with reverts("SignerCapExceeded"):
        world.open(1, {THIEF: 1}, by=3)
    for tranche, amount in zip(stolen, (60, 40), strict=True):
        world.redeem(world.item(tranche, THIEF, amount, by=3))
    with reverts("InsufficientFree"):
        world.escrow.withdrawFree(accounts[THIEF], 1, {"from": accounts[3]})
    assert world.escrow.freeBalance(accounts[1]) == free - 100


def test_a_leaked_key_cannot_draw_on_what_others_opened(world):
    world.escrow.authorizeSigner(accounts[3], 100, chain.time() + 10 * DAY, {"from": accounts[1]})
    tranche = world.open(1, {THIEF: TEN})
    with reverts("SignerNotAccepted"):
        world.redeem(world.item(tranche, THIEF, TEN, by=3))


# ---- reentrancy ----


@pytest.fixture
def hostile(world, project):
    """The same contracts over a token that calls back in the middle of every transfer; its agent is a payee."""
    token = accounts[0].deploy(project.HostileToken)
    registry = accounts[0].deploy(project.NodeRegistry, token, accounts[0], MIN_STAKE, DAY)
    escrow = accounts[0].deploy(project.Escrow, token, registry, world.timelock, PARAMETERS)
    registry.grantRole(registry.ESCROW_ROLE(), escrow, {"from": accounts[0]})
    return World(token, registry, world.models, escrow, world.timelock, world.harness)


def agent_of(world, project):
    return Contract.from_abi("Agent", world.token.agent(), project.Agent.abi)


@pytest.mark.parametrize("name", ["withdrawPayee", "redeem", "withdrawFree", "deposit", "burnFees"])
def test_a_withdrawing_payee_cannot_reenter(hostile, project, name):
    hostile.fund(1, 100)
    agent = agent_of(hostile, project)
    tree = SumTree([Leaf(Address(agent.address), 50), Leaf(addressed(4), 50)])
    tranche = hostile.open_root(1, tree.root, tree=tree)
    voucher = Voucher(tranche.id, Address(agent.address), 50, ZERO_HASH)
    signature = voucher.sign(hostile.domain, signer(1)).signature
    siblings = [[node.hash, node.sum] for node in tree.proof(0).siblings]
    item = [[tranche.id, agent.address, 50, ZERO_HASH], 50, 0, siblings, signature]
    hostile.redeem(item)

    arguments = {"withdrawPayee": [agent], "redeem": [[item]], "withdrawFree": [agent, 1], "deposit": [1]}
    reentry = getattr(hostile.escrow, name).encode_input(*arguments.get(name, []))
    hostile.token.arm(hostile.escrow, reentry, {"from": accounts[0]})
    agent.act(hostile.escrow, hostile.escrow.withdrawPayee.encode_input(agent), {"from": accounts[8]})
    assert hostile.token.attempted()
    assert not hostile.token.succeeded()
    assert hostile.token.outcome()[:4] == bytes.fromhex("3ee5aeb5")  # ReentrancyGuardReentrantCall()
    assert hostile.token.balanceOf(agent) == 50


def test_a_deposit_that_calls_back_is_counted_once(hostile, project):
    hostile.token.transfer(accounts[1], 100, {"from": accounts[0]})
    hostile.token.approve(hostile.escrow, 100, {"from": accounts[1]})
    hostile.token.arm(hostile.escrow, hostile.escrow.withdrawFree.encode_input(accounts[8], 1), {"from": accounts[0]})
    hostile.escrow.deposit(100, {"from": accounts[1]})
    assert hostile.token.attempted()
    assert not hostile.token.succeeded()
    assert hostile.escrow.freeBalance(accounts[1]) == 100 == hostile.token.balanceOf(hostile.escrow)


def test_a_withdrawal_of_stake_cannot_reenter(hostile, project):
    hostile.stake(4)
    hostile.registry.beginUnstake(accounts[4], MIN_STAKE, {"from": accounts[4]})
    chain.sleep(DAY + 1)
    reentry = hostile.registry.withdrawStake.encode_input(accounts[4])
    hostile.token.arm(hostile.registry, reentry, {"from": accounts[0]})
    hostile.registry.withdrawStake(accounts[4], {"from": accounts[4]})
    assert hostile.token.attempted()
    assert not hostile.token.succeeded()
    assert hostile.token.balanceOf(accounts[4]) == MIN_STAKE
