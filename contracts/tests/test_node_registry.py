"""Stake: who owns it, how it leaves, and that slashing and locks reach all of it."""

from __future__ import annotations

import pytest
from brownie import accounts, chain
from world import DAY, MIN_STAKE, ONE_NECTAR, UNBONDING, now, pass_time, reverts

NOWHERE = "0x" + "0" * 40
FOREVER = 2**64 - 1
FAULT = b"\x0f" * 32
NODE, OWNER, STRANGER = 4, 6, 8


def by(index):
    return {"from": accounts[index]}


@pytest.fixture
def registry(world):
    """A registry with node 4, owned by account 6; account 0 may also lock stake, as an escrow does."""
    world.stake(NODE, MIN_STAKE, owner=OWNER)
    world.registry.grantRole(world.registry.ESCROW_ROLE(), accounts[0], by(0))
    return world.registry


def node(registry):
    return registry.nodeOf(accounts[NODE])


def test_a_registered_node_is_active_and_belongs_to_its_owner(registry, world):
    record = node(registry)
    assert (record["owner"], record["stake"], record["active"]) == (accounts[OWNER], MIN_STAKE, True)
    assert bytes(record["peerId"]) == b"peer-4"
    assert registry.activeStake(accounts[NODE]) == MIN_STAKE
    assert world.token.balanceOf(registry) == MIN_STAKE


def test_a_node_registers_once(registry):
    with reverts("AlreadyRegistered"):
        registry.register(b"again", accounts[OWNER], MIN_STAKE, by(NODE))


@pytest.mark.parametrize(
    ("peer_id", "owner", "stake", "error"),
    [
        (b"", 7, MIN_STAKE, "PeerIdLengthInvalid"),
        (b"x" * 65, 7, MIN_STAKE, "PeerIdLengthInvalid"),
        (b"x", None, MIN_STAKE, "OwnerIsZero"),
        (b"x", 7, MIN_STAKE - 1, "StakeTooSmall"),
        (b"x", 7, 2**96, "StakeInsufficient"),
        (b"x", 7, MIN_STAKE, "ERC20InsufficientAllowance"),
    ],
)
def test_a_malformed_registration_is_refused(registry, peer_id, owner, stake, error):
    with reverts(error):
        registry.register(peer_id, NOWHERE if owner is None else accounts[owner], stake, by(7))


def test_a_node_that_never_registered_is_all_zero(registry):
    assert not registry.isActive(accounts[7])
    assert registry.nodeOf(accounts[7])["owner"] == NOWHERE
    for call in (
        lambda: registry.updatePeerId(b"x", by(7)),
        lambda: registry.addStake(accounts[7], 1, by(0)),
        lambda: registry.beginUnstake(accounts[7], 1, by(7)),
        lambda: registry.withdrawStake(accounts[7], by(7)),
        lambda: registry.jail(accounts[7], FOREVER, by(0)),
        lambda: registry.slash(accounts[7], 1, accounts[0], 0, FAULT, by(0)),
    ):
        with reverts("NotRegistered"):
            call()


def test_a_node_updates_its_peer_id(registry):
    registry.updatePeerId(b"moved", by(NODE))
    assert bytes(node(registry)["peerId"]) == b"moved"
    with reverts("PeerIdLengthInvalid"):
        registry.updatePeerId(b"", by(NODE))


def test_anyone_may_add_stake_for_a_node(registry, world):
    world.token.approve(registry, 50, by(0))
    registry.addStake(accounts[NODE], 50, by(0))
    assert node(registry)["stake"] == MIN_STAKE + 50
    with reverts("StakeTooSmall"):
        registry.addStake(accounts[NODE], 0, by(0))


def test_only_the_owner_begins_to_unstake(registry):
    for index in (NODE, STRANGER):
        with reverts("NotOwner"):
            registry.beginUnstake(accounts[NODE], 1, by(index))
    with reverts("StakeInsufficient", MIN_STAKE, MIN_STAKE + 1):
        registry.beginUnstake(accounts[NODE], MIN_STAKE + 1, by(OWNER))
    with reverts("StakeTooSmall"):
        registry.beginUnstake(accounts[NODE], 0, by(OWNER))


def test_stake_returns_to_the_owner_after_the_unbonding_delay(registry, world):
    at = registry.beginUnstake(accounts[NODE], MIN_STAKE, by(OWNER)).timestamp
    record = node(registry)
    assert (record["stake"], record["unbonding"], record["unbondingAt"]) == (0, MIN_STAKE, at + UNBONDING)
    assert not record["active"]
    pass_time(at + UNBONDING - 1)
    with reverts("StillUnbonding", at + UNBONDING):
        registry.withdrawStake.call(accounts[NODE], by(OWNER))
    pass_time(at + UNBONDING)
    with reverts("NotOwner"):
        registry.withdrawStake(accounts[NODE], by(STRANGER))
    registry.withdrawStake(accounts[NODE], by(NODE))
    assert world.token.balanceOf(accounts[OWNER]) == MIN_STAKE
    assert world.token.balanceOf(registry) == 0
    assert node(registry)["unbondingAt"] == 0
    with reverts("NothingUnbonding"):
        registry.withdrawStake(accounts[NODE], by(OWNER))


def test_unstaking_more_restarts_the_delay(registry):
    registry.beginUnstake(accounts[NODE], 10, by(OWNER))
    chain.sleep(UNBONDING)
    second = registry.beginUnstake(accounts[NODE], 5, by(OWNER)).timestamp
    assert node(registry)["unbonding"] == 15
    assert node(registry)["unbondingAt"] == second + UNBONDING


def test_a_node_below_the_minimum_is_inactive_until_topped_up(registry, world):
    registry.beginUnstake(accounts[NODE], 1, by(OWNER))
    assert not registry.isActive(accounts[NODE])
    world.token.approve(registry, 1, by(0))
    registry.addStake(accounts[NODE], 1, by(0))
    assert registry.isActive(accounts[NODE])


def test_locked_stake_cannot_be_withdrawn(registry, world):
    registry.beginUnstake(accounts[NODE], MIN_STAKE, by(OWNER))
    chain.sleep(UNBONDING + 1)
    until = now() + DAY
    registry.lockStake(accounts[NODE], MIN_STAKE - 10, until, by(0))
    registry.withdrawStake(accounts[NODE], by(OWNER))
    assert world.token.balanceOf(accounts[OWNER]) == 10
    with reverts("StakeStillLocked", MIN_STAKE - 10, until):
        registry.withdrawStake(accounts[NODE], by(OWNER))
    pass_time(until)
    registry.withdrawStake(accounts[NODE], by(OWNER))
    assert world.token.balanceOf(accounts[OWNER]) == MIN_STAKE


def test_active_stake_can_back_a_lock_while_the_rest_leaves(registry, world):
    registry.lockStake(accounts[NODE], MIN_STAKE // 2, now() + 30 * DAY - 60, by(0))
    registry.beginUnstake(accounts[NODE], MIN_STAKE // 2, by(OWNER))
    chain.sleep(UNBONDING + 1)
    registry.withdrawStake(accounts[NODE], by(OWNER))
    assert world.token.balanceOf(accounts[OWNER]) == MIN_STAKE // 2


def test_locks_take_what_is_there_and_never_revert_for_want_of_it(registry):
    assert registry.lockStake(accounts[NODE], 2**255, now() + DAY, by(0)).return_value == MIN_STAKE
    assert registry.lockStake(accounts[NODE], 1, now() + DAY, by(0)).return_value == 0
    assert registry.lockStake(accounts[7], 1, now() + DAY, by(0)).return_value == 0
    assert registry.lockStake(accounts[NODE], 1, now() - 1, by(0)).return_value == 0


def test_a_lock_is_bounded_in_time(registry):
    with reverts("OutOfBounds"):
        registry.lockStake(accounts[NODE], 1, now() + 31 * DAY, by(0))


def test_only_an_escrow_locks_only_a_slasher_slashes_only_a_jailer_jails(registry):
    for call in (
        lambda: registry.lockStake(accounts[NODE], 1, now() + DAY, by(STRANGER)),
        lambda: registry.slash(accounts[NODE], 1, accounts[STRANGER], 0, FAULT, by(STRANGER)),
        lambda: registry.jail(accounts[NODE], FOREVER, by(STRANGER)),
        lambda: registry.unjail(accounts[NODE], by(STRANGER)),
        lambda: registry.setMinStake(1, by(STRANGER)),
        lambda: registry.setUnbondingDelay(DAY, by(STRANGER)),
    ):
        with reverts("AccessControlUnauthorizedAccount"):
            call()


def test_a_slash_reaches_unbonding_stake_and_burns_what_it_does_not_award(registry, world):
    registry.beginUnstake(accounts[NODE], MIN_STAKE - 40, by(OWNER))
    supply = world.token.totalSupply()
    tx = registry.slash(accounts[NODE], 100, accounts[7], 30, FAULT, by(0))
    record = node(registry)
    assert (record["stake"], record["unbonding"]) == (0, MIN_STAKE - 100)
    assert world.token.balanceOf(accounts[7]) == 30
    assert world.token.totalSupply() == supply - 70
    assert tx.events["NodeSlashed"]["amount"] == 100 == tx.return_value


def test_a_slash_takes_all_there_is_and_no_more(registry, world):
    registry.beginUnstake(accounts[NODE], 1, by(OWNER))
    assert registry.slash(accounts[NODE], 2**255, accounts[7], 0, FAULT, by(0)).return_value == MIN_STAKE
    assert node(registry)["unbondingAt"] == 0
    assert world.token.balanceOf(registry) == 0
    with reverts("StakeInsufficient"):
        registry.slash(accounts[NODE], 1, accounts[7], 0, FAULT, by(0))


def test_at_most_half_of_a_slash_is_awarded(registry):
    with reverts("RewardTooLarge", 50, 51):
        registry.slash(accounts[NODE], 100, accounts[7], 51, FAULT, by(0))
    registry.slash(accounts[NODE], 100, accounts[7], 50, FAULT, by(0))


def test_a_jailed_node_is_inactive_until_released(registry):
    until = now() + DAY
    registry.jail(accounts[NODE], until, by(0))
    assert not registry.isActive(accounts[NODE])
    with reverts("Jailed"):
        registry.jail(accounts[NODE], until - 10, by(0))
    registry.unjail(accounts[NODE], by(0))
    assert registry.isActive(accounts[NODE])
    with reverts("NotJailed"):
        registry.unjail(accounts[NODE], by(0))
    registry.jail(accounts[NODE], until, by(0))
    pass_time(until + 1)
    assert registry.isActive(accounts[NODE])


def test_a_tombstone_is_for_good(registry):
    registry.jail(accounts[NODE], FOREVER, by(0))
    with reverts("Jailed"):
        registry.unjail(accounts[NODE], by(0))


def test_a_jailing_is_bounded_in_time(registry):
    for until in (now() - 10, now() + 61 * DAY, FOREVER - 1):
        with reverts("OutOfBounds"):
            registry.jail(accounts[NODE], until, by(0))


def test_a_jailed_nodes_stake_still_unbonds(registry, world):
    registry.jail(accounts[NODE], FOREVER, by(0))
    registry.beginUnstake(accounts[NODE], ONE_NECTAR, by(OWNER))
    chain.sleep(UNBONDING + 1)
    registry.withdrawStake(accounts[NODE], by(OWNER))
    assert world.token.balanceOf(accounts[OWNER]) == ONE_NECTAR
