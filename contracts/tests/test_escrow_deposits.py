"""Money in, money out, and the opening of tranches by payers and by their session keys."""

from __future__ import annotations

import pytest
from brownie import accounts, chain
from world import DAY, GRACE, ONE_NECTAR, THAW_DELAY, now, pass_time, reverts

from corolla_core.protocol.ids import ZERO_ADDRESS

KEY = 3
ROOT = b"\x01" * 32
PAYER, OTHER = {"from": 1}, {"from": 2}


@pytest.fixture(autouse=True)
def senders(deployed):
    PAYER["from"], OTHER["from"] = accounts[1], accounts[2]


def authorize(world, cap=50, lasts=10 * DAY):
    world.escrow.authorizeSigner(accounts[KEY], cap, now() + lasts, PAYER)


def open_by_key(world, total=10, lasts=DAY):
    return world.escrow.openTrancheFor(accounts[1], ROOT, total, now() + lasts, {"from": accounts[KEY]})


# ---- deposits ----


def test_a_deposit_is_free_until_a_tranche_locks_it(world):
    free = world.escrow.freeBalance(accounts[1])
    assert free == 1_000 * ONE_NECTAR
    world.open(1, {4: 300})
    assert world.escrow.freeBalance(accounts[1]) == free - 300
    world.escrow.withdrawFree(accounts[7], free - 300, PAYER)
    assert world.token.balanceOf(accounts[7]) == free - 300
    with reverts("InsufficientFree", 0, 1):
        world.escrow.withdrawFree(accounts[7], 1, PAYER)


def test_anyone_may_deposit_for_another(world):
    world.token.approve(world.escrow, 5, {"from": accounts[0]})
    world.escrow.depositFor(accounts[7], 5, {"from": accounts[0]})
    assert world.escrow.freeBalance(accounts[7]) == 5
    world.escrow.withdrawFree(accounts[7], 5, {"from": accounts[7]})


def test_nothing_moves_for_nothing_or_to_nowhere(world):
    for call, error in (
        (lambda: world.escrow.deposit(0, PAYER), "AmountIsZero"),
        (lambda: world.escrow.depositFor(ZERO_ADDRESS, 1, PAYER), "AddressIsZero"),
        (lambda: world.escrow.withdrawFree(ZERO_ADDRESS, 1, PAYER), "AddressIsZero"),
        (lambda: world.escrow.withdrawFree(accounts[1], 0, PAYER), "AmountIsZero"),
        (lambda: world.escrow.openTranche(ROOT, 0, now() + DAY, PAYER), "AmountIsZero"),
        (lambda: world.escrow.openTranche(bytes(32), 1, now() + DAY, PAYER), "RootIsZero"),
    ):
        with reverts(error):
            call()


def test_a_deposit_without_tokens_or_approval_reverts(world):
    with reverts("ERC20InsufficientAllowance"):
        world.escrow.deposit(1, {"from": accounts[8]})
    world.token.approve(world.escrow, 1, {"from": accounts[8]})
    with reverts("ERC20InsufficientBalance"):
        world.escrow.deposit(1, {"from": accounts[8]})


# ---- tranches ----


def test_an_opened_tranche_reads_back_in_full(world):
    tranche = world.open(1, {4: 300, 5: 200})
    stored = world.escrow.tranche(tranche.id)
    assert (stored["payer"], stored["signer"]) == (accounts[1], ZERO_ADDRESS)
    assert (stored["expiry"], stored["closesAt"]) == (tranche.expiry, tranche.expiry + GRACE)
    assert (stored["total"], stored["redeemed"], stored["reclaimed"]) == (500, 0, False)
    assert bytes(stored["root"]) == tranche.tree.root.hash


def test_a_tranche_that_was_never_opened_is_all_zero(world):
    assert world.escrow.tranche(ROOT)["payer"] == ZERO_ADDRESS
    with reverts("TrancheUnknown"):
        world.escrow.reclaim(ROOT, PAYER)


def test_a_tranche_locks_no_more_than_is_free(world):
    with reverts("InsufficientFree"):
        world.escrow.openTranche(ROOT, 1_000 * ONE_NECTAR + 1, now() + DAY, PAYER)
    with reverts("InsufficientFree", 0, 1):
        world.escrow.openTranche(ROOT, 1, now() + DAY, {"from": accounts[8]})


def test_an_expiry_lies_ahead_and_within_ninety_days(world):
    for expiry in (now() - 10, now() + 90 * DAY + 100, 2**64 - 1):
        with reverts("ExpiryOutOfRange"):
            world.escrow.openTranche(ROOT, 1, expiry, PAYER)


def test_every_tranche_of_every_payer_has_its_own_id(world):
    ids = {world.open(payer, {4: 1}).id for payer in (1, 2) for _ in range(2)}
    assert len(ids) == 4
    assert world.escrow.trancheNonce(accounts[1]) == 2


# ---- session keys ----


def test_a_session_key_opens_tranches_and_signs_their_vouchers(world):
    authorize(world, cap=50)
    tranche = world.open(1, {4: 30}, by=KEY)
    assert world.escrow.tranche(tranche.id)["signer"] == accounts[KEY]
    world.redeem(world.item(tranche, 4, 10, by=KEY))
    world.redeem(world.item(tranche, 4, 20, by=1))
    assert world.escrow.claimed(tranche.id, accounts[4]) == 20
    session = world.escrow.session(accounts[1], accounts[KEY])
    assert (session["cap"], session["opened"], session["lastClose"]) == (50, 30, tranche.closes_at)


def test_a_session_key_opens_no_more_than_its_cap_in_all(world):
    authorize(world, cap=50)
    open_by_key(world, 30)
    with reverts("SignerCapExceeded", 50, 51):
        open_by_key(world, 21)
    open_by_key(world, 20)
    with reverts("SignerCapExceeded", 50, 51):
        open_by_key(world, 1)


def test_a_session_key_signs_only_for_tranches_it_opened(world):
    authorize(world)
    world.escrow.authorizeSigner(accounts[9], 50, now() + DAY, PAYER)
    by_payer, by_other_key = world.open(1, {4: 10}), world.open(1, {4: 10}, by=9)
    for tranche in (by_payer, by_other_key):
        with reverts("SignerNotAccepted"):
            world.redeem(world.item(tranche, 4, 10, by=KEY))


def test_a_session_key_works_for_its_own_payer_alone(world):
    authorize(world)
    with reverts("SignerUnknown"):
        world.escrow.openTrancheFor(accounts[2], ROOT, 1, now() + DAY, {"from": accounts[KEY]})
    with reverts("SignerUnknown"):
        world.escrow.openTrancheFor(accounts[1], ROOT, 1, now() + DAY, OTHER)


def test_an_expired_session_key_opens_nothing(world):
    authorize(world, lasts=DAY)
    expiry = world.escrow.session(accounts[1], accounts[KEY])["expiry"]
    pass_time(expiry + 1)
    with reverts("SignerExpired", expiry):
        open_by_key(world)


def test_a_malformed_authorization_is_refused(world):
    for signer, expiry, error in (
        (ZERO_ADDRESS, now() + DAY, "AddressIsZero"),
        (accounts[1], now() + DAY, "SignerIsPayer"),
        (accounts[KEY], now() - 10, "ExpiryOutOfRange"),
        (accounts[KEY], now() + 91 * DAY, "ExpiryOutOfRange"),
    ):
        with reverts(error):
            world.escrow.authorizeSigner(signer, 1, expiry, PAYER)


def test_a_thaw_stops_new_tranches_at_once_and_spares_the_open_ones(world):
    authorize(world)
    tranche = world.open(1, {4: 10}, by=KEY)
    world.escrow.thawSigner(accounts[KEY], PAYER)
    with reverts("SignerThawing"):
        open_by_key(world)
    with reverts("SignerThawing"):
        world.escrow.thawSigner(accounts[KEY], PAYER)
    world.redeem(world.item(tranche, 4, 10, by=KEY))
    assert world.escrow.claimed(tranche.id, accounts[4]) == 10


def test_a_key_is_revoked_only_after_its_thaw_and_its_last_tranche(world):
    authorize(world)
    with reverts("SignerNotThawing"):
        world.escrow.revokeSigner(accounts[KEY], PAYER)
    tranche = world.open(1, {4: 10}, by=KEY)
    world.escrow.thawSigner(accounts[KEY], PAYER)
    chain.sleep(THAW_DELAY + 10)
    with reverts("SignerNotRevocable", tranche.closes_at):
        world.escrow.revokeSigner(accounts[KEY], PAYER)
    pass_time(tranche.closes_at)
    with reverts("SignerNotRevocable", tranche.closes_at):
        world.escrow.revokeSigner.call(accounts[KEY], PAYER)
    assert world.escrow.redeem.call([world.item(tranche, 4, 10, by=KEY)], OTHER) == 10
    pass_time(tranche.closes_at + 1)
    world.escrow.revokeSigner(accounts[KEY], PAYER)
    with reverts("TrancheClosed"):
        world.redeem(world.item(tranche, 4, 10, by=KEY))
    with reverts("SignerUnknown"):
        open_by_key(world)
    with reverts("SignerUnknown"):
        world.escrow.revokeSigner(accounts[KEY], PAYER)


def test_a_key_that_opened_nothing_still_thaws_for_the_whole_delay(world):
    authorize(world)
    world.escrow.thawSigner(accounts[KEY], PAYER)
    at = world.escrow.session(accounts[1], accounts[KEY])["thawedAt"]
    pass_time(at)
    with reverts("SignerNotRevocable", at):
        world.escrow.revokeSigner.call(accounts[KEY], PAYER)
    pass_time(at + 1)
    world.escrow.revokeSigner(accounts[KEY], PAYER)
    authorize(world, cap=7)
    assert world.escrow.session(accounts[1], accounts[KEY])["opened"] == 0


def test_authorizing_again_keeps_the_count_and_ends_a_thaw(world):
    authorize(world, cap=50)
    open_by_key(world, 30)
    world.escrow.thawSigner(accounts[KEY], PAYER)
    authorize(world, cap=40)
    with reverts("SignerCapExceeded", 40, 41):
        open_by_key(world, 11)
    open_by_key(world, 10)


def test_only_its_payer_thaws_a_key(world):
    authorize(world)
    for call in (world.escrow.thawSigner, world.escrow.revokeSigner):
        with reverts("SignerUnknown"):
            call(accounts[KEY], OTHER)
