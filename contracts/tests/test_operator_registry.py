"""Attestations: by the consortium alone, for a while, and revocable at once."""

from __future__ import annotations

import pytest
from brownie import accounts
from world import DAY, now, pass_time, reverts

CONSORTIUM, ACCOUNT, STRANGER = 2, 4, 8
METADATA = b"\x07" * 32
NOWHERE = "0x" + "0" * 40


def by(index):
    return {"from": accounts[index]}


@pytest.fixture
def operators(project, fn_isolation):
    return accounts[0].deploy(project.OperatorRegistry, accounts[CONSORTIUM])


def test_an_attestation_holds_up_to_its_last_second(operators):
    expiry = now() + DAY
    assert not operators.isAttested(accounts[ACCOUNT])
    operators.attest(accounts[ACCOUNT], METADATA, expiry, by(CONSORTIUM))
    assert tuple(operators.attestation(accounts[ACCOUNT])) == ("0x" + METADATA.hex(), expiry)
    pass_time(expiry)
    assert operators.isAttested(accounts[ACCOUNT])
    pass_time(expiry + 1)
    assert not operators.isAttested(accounts[ACCOUNT])


def test_a_revocation_holds_at_once_and_until_attested_again(operators):
    operators.attest(accounts[ACCOUNT], METADATA, now() + DAY, by(CONSORTIUM))
    operators.revoke(accounts[ACCOUNT], by(CONSORTIUM))
    assert not operators.isAttested(accounts[ACCOUNT])
    with reverts("NotAttested"):
        operators.revoke(accounts[ACCOUNT], by(CONSORTIUM))
    operators.attest(accounts[ACCOUNT], METADATA, now() + DAY, by(CONSORTIUM))
    assert operators.isAttested(accounts[ACCOUNT])


def test_accounts_are_told_one_by_one_and_all_at_once(operators):
    for index in (4, 5, 6):
        operators.attest(accounts[index], METADATA, now() + index * DAY, by(CONSORTIUM))
    operators.attest(accounts[4], METADATA, now() + DAY, by(CONSORTIUM))
    operators.revoke(accounts[5], by(CONSORTIUM))
    assert set(operators.accounts()) == {accounts[4], accounts[6]}
    pass_time(now() + 2 * DAY)
    assert list(operators.areAttested([accounts[i] for i in (4, 5, 6, 7)])) == [False, False, True, False]
    assert set(operators.accounts()) == {accounts[4], accounts[6]}  # an expired one is to be renewed or revoked


def test_only_the_consortium_attests_and_its_successor_must_agree(operators):
    for call in (
        lambda: operators.attest(accounts[STRANGER], METADATA, now() + DAY, by(STRANGER)),
        lambda: operators.revoke(accounts[ACCOUNT], by(STRANGER)),
    ):
        with reverts("OwnableUnauthorizedAccount"):
            call()
    operators.transferOwnership(accounts[STRANGER], by(CONSORTIUM))
    assert operators.owner() == accounts[CONSORTIUM]
    operators.acceptOwnership(by(STRANGER))
    assert operators.owner() == accounts[STRANGER]


def test_malformed_attestations_are_refused(operators):
    for account, metadata, lasts, error in (
        (NOWHERE, METADATA, DAY, "AccountIsZero"),
        (accounts[ACCOUNT], bytes(32), DAY, "MetadataIsZero"),
        (accounts[ACCOUNT], METADATA, -10, "ExpiryOutOfRange"),
        (accounts[ACCOUNT], METADATA, 731 * DAY, "ExpiryOutOfRange"),
    ):
        with reverts(error):
            operators.attest(account, metadata, now() + lasts, by(CONSORTIUM))
