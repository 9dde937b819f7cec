"""Parameters move by the timelock alone, and within bounds nobody can move."""

from __future__ import annotations

import pytest
from brownie import accounts, chain
from world import DAY, MIN_STAKE, ONE_NECTAR, PARAMETERS, UNBONDING, fee_of, reverts

NAMES = ("feeBps", "lockBps", "grace", "auditWindow", "thawDelay")
BOUNDS = {
    "feeBps": (0, 500),
    "lockBps": (0, 50_000),
    "grace": (1, 7 * DAY),
    "auditWindow": (1, 7 * DAY),
    "thawDelay": (1, 7 * DAY),
}


def with_(name, value):
    return [value if field == name else old for field, old in zip(NAMES, PARAMETERS, strict=True)]


def test_nobody_but_the_timelock_sets_the_escrows_parameters(world):
    for account in (accounts[0], accounts[1]):
        with reverts("OwnableUnauthorizedAccount"):
            world.escrow.setParameters(PARAMETERS, {"from": account})


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_reaches_its_bounds_and_stops_there(world, name):
    lowest, highest = BOUNDS[name]
    owner = {"from": accounts.at(world.timelock, force=True), "gas_price": 0, "required_confs": 0}
    # The bounds are the same whoever calls: ask the contract as its owner, without a transaction.
    for value in (lowest, highest):
        world.escrow.setParameters.call(with_(name, value), owner)
    outside = [highest + 1] + ([lowest - 1] if lowest else [])
    for value in outside:
        with reverts("OutOfBounds", value, lowest, highest):
            world.escrow.setParameters.call(with_(name, value), owner)


def test_the_timelock_sets_parameters_after_its_delay(world):
    call = world.escrow.setParameters.encode_input(with_("feeBps", 100))
    arguments = (world.escrow, 0, call, bytes(32), bytes(32))
    world.timelock.schedule(*arguments, 60, {"from": accounts[0]})
    with reverts("TimelockUnexpectedOperationState"):
        world.timelock.execute(*arguments, {"from": accounts[0]})
    chain.sleep(61)
    world.timelock.execute(*arguments, {"from": accounts[0]})
    assert world.escrow.parameters()["feeBps"] == 100


def test_a_new_fee_or_grace_does_not_touch_open_tranches(world):
    tranche = world.open(1, {4: ONE_NECTAR})
    changed = [500, *PARAMETERS[1:2], 1, *PARAMETERS[3:]]
    world.govern(world.escrow, world.escrow.setParameters.encode_input(changed))
    world.redeem(world.item(tranche, 4, ONE_NECTAR))
    assert world.escrow.payeeBalance(accounts[4]) == ONE_NECTAR - fee_of(ONE_NECTAR)
    assert world.escrow.tranche(tranche.id)["closesAt"] == tranche.closes_at
    later = world.open(1, {4: ONE_NECTAR})
    assert later.closes_at == later.expiry + 1
    assert world.escrow.tranche(later.id)["feeBps"] == 500


def test_governance_cannot_cut_the_escrow_off_from_the_registry(world):
    role = world.registry.ESCROW_ROLE()
    with reverts("RoleIsPermanent"):
        world.registry.revokeRole(role, world.escrow, {"from": accounts[0]})
    assert world.registry.hasRole(role, world.escrow)


def test_the_registry_can_be_handed_to_the_timelock(world):
    registry, admin = world.registry, bytes(32)
    registry.grantRole(admin, world.timelock, {"from": accounts[0]})
    registry.renounceRole(admin, accounts[0], {"from": accounts[0]})
    with reverts("AccessControlUnauthorizedAccount"):
        registry.setMinStake(1, {"from": accounts[0]})
    world.govern(registry, registry.setMinStake.encode_input(MIN_STAKE * 2))
    assert registry.minStake() == MIN_STAKE * 2


def test_the_registrys_parameters_are_bounded(world):
    admin = {"from": accounts[0]}
    for value in (0, 1_000_000 * ONE_NECTAR + 1):
        with reverts("OutOfBounds"):
            world.registry.setMinStake(value, admin)
    for value in (0, 60 * DAY + 1):
        with reverts("OutOfBounds"):
            world.registry.setUnbondingDelay(value, admin)


def test_a_new_unbonding_delay_does_not_touch_what_already_unbonds(world):
    world.stake(4)
    world.registry.beginUnstake(accounts[4], 10, {"from": accounts[4]})
    at = world.registry.nodeOf(accounts[4])["unbondingAt"]
    world.registry.setUnbondingDelay(UNBONDING * 2, {"from": accounts[0]})
    assert world.registry.nodeOf(accounts[4])["unbondingAt"] == at


def test_deployment_refuses_missing_addresses_and_bad_parameters(world, project):
    nowhere = "0x" + "0" * 40
    deploy = lambda *arguments: accounts[0].deploy(project.Escrow, *arguments)  # noqa: E731
    with reverts("AddressIsZero"):
        deploy(nowhere, world.registry, world.timelock, PARAMETERS)
    with reverts("AddressIsZero"):
        deploy(world.token, nowhere, world.timelock, PARAMETERS)
    with reverts("OutOfBounds"):
        deploy(world.token, world.registry, world.timelock, with_("feeBps", 501))
    with reverts("OwnableInvalidOwner"):
        deploy(world.token, world.registry, nowhere, PARAMETERS)
