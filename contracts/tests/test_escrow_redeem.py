"""Redeeming vouchers: what is paid, what is a no-op, what reverts."""

from __future__ import annotations

from brownie import accounts, chain
from world import (
    AUDIT_WINDOW,
    FEE_BPS,
    GRACE,
    LOCK_BPS,
    MIN_STAKE,
    ONE_NECTAR,
    UINT128,
    fee_of,
    pass_time,
    reverts,
    signer,
)

from corolla_core.protocol.ids import Address
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.voucher import escrow_domain

HEAD = bytes(range(32))
TEN = 10 * ONE_NECTAR
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def test_redeem_credits_the_payee_net_of_the_fee(world):
    tranche = world.open(1, {4: 10 * TEN, 5: 5 * TEN})
    tx = world.redeem(world.item(tranche, 4, TEN, head=HEAD))
    fee = fee_of(TEN)
    assert tx.return_value == TEN - fee
    assert world.escrow.payeeBalance(accounts[4]) == TEN - fee
    assert world.escrow.burnPending() == fee == TEN * FEE_BPS // 10_000
    assert world.escrow.claimed(tranche.id, accounts[4]) == TEN
    assert bytes(world.escrow.receiptHead(tranche.id, accounts[4])) == HEAD
    event = tx.events["Redeemed"]
    assert (event["payee"], event["amount"], event["fee"], event["cumulative"]) == (accounts[4], TEN, fee, TEN)
    assert world.escrow.tranche(tranche.id)["redeemed"] == TEN


def test_a_later_voucher_pays_only_what_it_adds(world):
    tranche = world.open(1, {4: 10 * TEN})
    world.redeem(world.item(tranche, 4, TEN))
    world.redeem(world.item(tranche, 4, TEN + 7, head=HEAD))
    assert world.escrow.claimed(tranche.id, accounts[4]) == TEN + 7
    assert world.escrow.payeeBalance(accounts[4]) == TEN + 7 - fee_of(TEN + 7)
    assert bytes(world.escrow.receiptHead(tranche.id, accounts[4])) == HEAD


def test_redeeming_again_or_an_older_voucher_changes_nothing(world):
    tranche = world.open(1, {4: 10 * TEN})
    new, old = world.item(tranche, 4, TEN, head=HEAD), world.item(tranche, 4, TEN - 1)
    world.redeem(new)
    before = world.escrow.payeeBalance(accounts[4]), world.escrow.tranche(tranche.id)
    tx = world.redeem(new, old, new)
    assert tx.return_value == 0
    assert "Redeemed" not in tx.events
    assert (world.escrow.payeeBalance(accounts[4]), world.escrow.tranche(tranche.id)) == before
    assert bytes(world.escrow.receiptHead(tranche.id, accounts[4])) == HEAD


def test_an_empty_batch_pays_nothing(world):
    assert world.redeem().return_value == 0


def test_the_whole_cap_and_no_more_can_be_claimed(world):
    tranche = world.open(1, {4: TEN, 5: TEN})
    with reverts("OverCap", TEN, TEN + 1):
        world.redeem(world.item(tranche, 4, TEN + 1))
    world.redeem(world.item(tranche, 4, TEN), world.item(tranche, 5, TEN))
    assert world.escrow.tranche(tranche.id)["redeemed"] == 2 * TEN


def test_a_raised_cap_does_not_fit_the_tree(world):
    tranche = world.open(1, {4: TEN, 5: TEN})
    with reverts("ProofInvalid"):
        world.redeem(world.item(tranche, 4, TEN + 1, cap=TEN + 1))


def test_anyone_may_redeem_but_only_the_payee_is_credited(world):
    tranche = world.open(1, {4: TEN})
    world.redeem(world.item(tranche, 4, TEN), by=9)
    assert world.escrow.payeeBalance(accounts[9]) == 0
    with reverts("NothingToWithdraw"):
        world.escrow.withdrawPayee(accounts[9], {"from": accounts[9]})
    world.escrow.withdrawPayee(accounts[7], {"from": accounts[4]})
    assert world.token.balanceOf(accounts[7]) == TEN - fee_of(TEN)
    with reverts("NothingToWithdraw"):
        world.escrow.withdrawPayee(accounts[4], {"from": accounts[4]})


def test_a_payee_cannot_withdraw_to_nowhere(world):
    with reverts("AddressIsZero"):
        world.escrow.withdrawPayee("0x" + "0" * 40, {"from": accounts[4]})


def test_a_voucher_for_an_unknown_tranche_reverts(world):
    tranche = world.open(1, {4: TEN})
    item = world.item(tranche, 4, TEN)
    item[0][0] = bytes(32)
    with reverts("TrancheUnknown"):
        world.redeem(item)


def test_a_stranger_cannot_sign_vouchers(world):
    tranche = world.open(1, {4: TEN})
    for stranger in (2, 3, 4):
        with reverts("SignerNotAccepted"):
            world.redeem(world.item(tranche, 4, TEN, by=stranger))


def test_a_changed_voucher_recovers_to_a_stranger(world):
    tranche = world.open(1, {4: TEN, 5: TEN})
    signature = world.item(tranche, 4, 5)[4]
    for changed in (
        world.item(tranche, 4, 6, signature=signature),
        world.item(tranche, 4, 5, head=HEAD, signature=signature),
        world.item(tranche, 5, 5, signature=signature),
    ):
        with reverts("SignerNotAccepted"):
            world.redeem(changed)


def test_a_voucher_under_another_domain_reverts(world):
    tranche = world.open(1, {4: TEN})
    escrow = Address(world.escrow.address)
    for domain in (escrow_domain(1, escrow), escrow_domain(1337, Address(accounts[9].address))):
        with reverts("SignerNotAccepted"):
            world.redeem(world.item(tranche, 4, TEN, domain=domain))


def test_the_high_s_twin_of_a_signature_reverts(world):
    tranche = world.open(1, {4: TEN})
    item = world.item(tranche, 4, TEN)
    signature = item[4]
    s = int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + (ORDER - s).to_bytes(32, "big") + bytes([55 - signature[64]])
    with reverts("ECDSAInvalidSignatureS"):
        world.redeem(world.item(tranche, 4, TEN, signature=twin))
    world.redeem(item)


def test_malformed_signatures_revert(world):
    tranche = world.open(1, {4: TEN})
    good = world.item(tranche, 4, TEN)[4]
    for signature, error in (
        (b"", "ECDSAInvalidSignatureLength"),
        (good[:64], "ECDSAInvalidSignatureLength"),
        (good + b"\x00", "ECDSAInvalidSignatureLength"),
        (good[:64] + b"\x00", "ECDSAInvalidSignature"),
        (bytes(64) + b"\x1b", "ECDSAInvalidSignature"),
    ):
        with reverts(error):
            world.redeem(world.item(tranche, 4, TEN, signature=signature))


def test_one_bad_item_reverts_the_batch(world):
    tranche = world.open(1, {4: TEN, 5: TEN})
    with reverts("SignerNotAccepted"):
        world.redeem(world.item(tranche, 4, TEN), world.item(tranche, 5, TEN, by=2))
    assert world.escrow.claimed(tranche.id, accounts[4]) == 0


def test_redemption_is_open_up_to_the_last_second_of_grace(world):
    tranche = world.open(1, {4: TEN})
    assert tranche.closes_at == tranche.expiry + GRACE
    redeem = lambda: world.escrow.redeem.call([world.item(tranche, 4, TEN)], {"from": accounts[8]})  # noqa: E731
    reclaim = lambda: world.escrow.reclaim.call(tranche.id, {"from": accounts[1]})  # noqa: E731
    pass_time(tranche.closes_at)
    assert redeem() == TEN - fee_of(TEN)
    with reverts("TrancheStillOpen", tranche.closes_at):
        reclaim()
    pass_time(tranche.closes_at + 1)
    with reverts("TrancheClosed", tranche.closes_at):
        redeem()
    assert reclaim() == TEN


def test_after_grace_a_voucher_reverts_and_the_payer_gets_the_rest(world):
    tranche = world.open(1, {4: TEN})
    world.redeem(world.item(tranche, 4, 4))
    free = world.escrow.freeBalance(accounts[1])
    pass_time(tranche.closes_at + 1)
    with reverts("TrancheClosed"):
        world.redeem(world.item(tranche, 4, TEN))
    tx = world.escrow.reclaim(tranche.id, {"from": accounts[8]})
    assert tx.events["TrancheReclaimed"]["amount"] == TEN - 4
    assert world.escrow.freeBalance(accounts[1]) == free + TEN - 4
    with reverts("AlreadyReclaimed"):
        world.escrow.reclaim(tranche.id, {"from": accounts[1]})
    with reverts("TrancheClosed"):
        world.redeem(world.item(tranche, 4, TEN))
    assert world.redeem(world.item(tranche, 4, 4)).return_value == 0


def test_what_was_claimed_before_the_close_is_still_the_payees(world):
    tranche = world.open(1, {4: TEN})
    world.redeem(world.item(tranche, 4, TEN))
    pass_time(tranche.closes_at + 1)
    world.escrow.reclaim(tranche.id, {"from": accounts[1]})
    world.escrow.withdrawPayee(accounts[4], {"from": accounts[4]})
    assert world.token.balanceOf(accounts[4]) == TEN - fee_of(TEN)


def test_a_tree_of_one_leaf_needs_no_siblings(world):
    tranche = world.open(1, {4: TEN})
    assert world.item(tranche, 4, TEN)[3] == []
    world.redeem(world.item(tranche, 4, TEN))
    assert world.escrow.claimed(tranche.id, accounts[4]) == TEN


def test_a_batch_over_many_tranches_and_payees_pays_each(world):
    first, second = world.open(1, {4: TEN, 5: TEN}), world.open(2, {5: TEN, 6: TEN})
    world.redeem(
        world.item(first, 4, 100),
        world.item(second, 5, 200, by=2),
        world.item(first, 5, 300),
        world.item(second, 6, 400, by=2),
        world.item(first, 4, 500),
    )
    balances = [world.escrow.payeeBalance(accounts[i]) for i in (4, 5, 6)]
    assert balances == [500 - fee_of(500), 500 - fee_of(200) - fee_of(300), 400 - fee_of(400)]


def test_redemption_locks_rho_times_the_amount_of_the_nodes_stake(world):
    world.stake(4)
    tranche = world.open(1, {4: TEN})
    at = world.redeem(world.item(tranche, 4, 100)).timestamp
    node = world.registry.nodeOf(accounts[4])
    assert node["locked"] == 100 * LOCK_BPS // 10_000
    assert node["lockedUntil"] == at + AUDIT_WINDOW


def test_a_lock_never_exceeds_the_stake_and_never_stops_a_payment(world):
    world.stake(4)
    tranche = world.open(1, {4: 900 * ONE_NECTAR})
    world.redeem(world.item(tranche, 4, 800 * ONE_NECTAR))
    assert world.registry.nodeOf(accounts[4])["locked"] == MIN_STAKE
    world.redeem(world.item(tranche, 4, 900 * ONE_NECTAR))
    assert world.escrow.claimed(tranche.id, accounts[4]) == 900 * ONE_NECTAR


def test_a_payee_that_never_registered_is_paid_all_the_same(world):
    tranche = world.open(1, {7: TEN})
    assert "StakeLocked" not in world.redeem(world.item(tranche, 7, TEN)).events
    assert world.escrow.payeeBalance(accounts[7]) == TEN - fee_of(TEN)


def test_fees_are_burned_by_anyone(world):
    tranche = world.open(1, {4: TEN})
    world.redeem(world.item(tranche, 4, TEN))
    supply = world.token.totalSupply()
    assert world.escrow.burnFees({"from": accounts[9]}).return_value == fee_of(TEN)
    assert world.token.totalSupply() == supply - fee_of(TEN)
    assert world.escrow.burnPending() == 0


def test_amounts_up_to_uint128_do_not_overflow(world):
    """Far beyond any supply: the proof itself must cope before money is looked at."""
    tranche = world.open(1, {4: TEN})
    item = world.item(tranche, 4, UINT128, cap=UINT128)
    with reverts("ProofInvalid"):
        world.redeem(item)
    with reverts("ProofInvalid"):
        world.redeem(world.item(tranche, 4, UINT128, cap=UINT128, index=1, siblings=[[bytes(32), UINT128]]))


def test_a_payee_that_appears_twice_gets_its_larger_cap_at_most(world):
    """Python refuses such a tree; a payer may build it all the same, to its own loss at most."""
    payee = Address(accounts[4].address)
    tree = SumTree([Leaf(payee, 30), Leaf(Address(accounts[5].address), 5), Leaf(Address(accounts[6].address), 50)])
    # Make the third leaf the same payee by hashing the tree by hand.
    from corolla_core.protocol.ids import ZERO_ADDRESS
    from corolla_core.protocol.sumtree import hash_leaf, hash_pair

    leaves = [hash_leaf(leaf) for leaf in (Leaf(payee, 30), tree.leaves[1], Leaf(payee, 50), Leaf(ZERO_ADDRESS, 0))]
    left, right = hash_pair(leaves[0], leaves[1]), hash_pair(leaves[2], leaves[3])
    tranche = world.open_root(1, hash_pair(left, right), tree=tree)
    branch = [[[n.hash, n.sum] for n in pair] for pair in ((leaves[1], right), (leaves[3], left))]
    world.redeem(world.item(tranche, 4, 30, cap=30, index=0, siblings=branch[0]))
    world.redeem(world.item(tranche, 4, 50, cap=50, index=2, siblings=branch[1]))
    with reverts("OverCap"):
        world.redeem(world.item(tranche, 4, 80, cap=50, index=2, siblings=branch[1]))
    assert world.escrow.claimed(tranche.id, accounts[4]) == 50


def test_the_signer_helper_matches_the_chains_accounts(world):
    assert [signer(i).address for i in range(9)] == [accounts[i].address for i in range(9)]
    assert chain.id == 1337
