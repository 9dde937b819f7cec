"""The jurors' stake, who is drawn from it, and the bounds of the jury's parameters."""

from __future__ import annotations

import pytest
from brownie import ZERO_ADDRESS, accounts, chain
from jury_world import (
    APPEAL,
    CHALLENGER,
    CLIENT,
    FAULTY,
    JUROR_UNBONDING,
    JURORS,
    LONGEST,
    NODE,
    OWNER,
    SEAT_STAKE,
    SEATS,
    mirror,
    terms,
)
from world import DAY, MIN_STAKE, ONE_NECTAR, UNBONDING, pass_time, reverts

STAKES = {juror: (10 + index) * SEAT_STAKE for index, juror in enumerate(JURORS)}


def stakes(jury):
    """(juror, owner, stake) in the order of the leaves, as they are now."""
    found = []
    for account in accounts:
        record = jury.pool.jurorOf(account)
        if record["leaf"]:
            found.append((record["leaf"], account.address, record["owner"], record["stake"]))
    return [entry[1:] for entry in sorted(found)]


def drawn_by_mirror(jury, id_, frozen, barred=frozenset()):
    number = jury.round_of(id_)
    return mirror(jury.current(id_)["seedBlock"], jury.disputes, id_, number, frozen, barred)


def by_address(drawn):
    return {accounts[juror].address: seats for juror, seats in drawn.items()}


# ---- who is drawn ----


def test_who_is_drawn_follows_from_the_seed_and_the_frozen_stakes_alone(jury):
    frozen = stakes(jury)
    id_ = jury.accuse()
    # After the snapshot one joins with more than all the others, one doubles, one leaves.
    jury.join(2, 1_000 * SEAT_STAKE)
    jury.grant(7, STAKES[7], jury.pool)
    jury.pool.addStake(accounts[7], STAKES[7], {"from": accounts[7]})
    jury.pool.beginLeave(accounts[8], STAKES[8], {"from": accounts[8]})
    first = jury.draw(id_)
    assert 2 not in first
    assert by_address(first) == drawn_by_mirror(jury, id_, frozen)
    jury.vote(id_, dict.fromkeys(first, FAULTY))
    jury.appeal(id_, by=OWNER)
    second = jury.draw(id_)
    assert by_address(second) == drawn_by_mirror(jury, id_, frozen)
    assert sum(second.values()) == SEATS[1]
    # The next accusation sees the stakes as they are by then.
    later = stakes(jury)
    next_ = jury.accuse()
    drawn = jury.draw(next_)
    assert by_address(drawn) == drawn_by_mirror(jury, next_, later)
    assert 8 not in drawn


def test_a_juror_of_the_accuseds_or_challengers_side_is_never_drawn(jury):
    """The node's owner's juror and the challenger's owner's have far more stake than all the others."""
    jury.join(2, 300 * SEAT_STAKE, owner=OWNER)
    jury.join(3, 300 * SEAT_STAKE, owner=0)
    jury.join(CHALLENGER, SEAT_STAKE, owner=0)
    frozen = stakes(jury)
    id_ = jury.accuse()
    drawn = jury.draw(id_)
    assert not {2, 3, CHALLENGER} & set(drawn)
    barred = {accounts[i].address for i in (NODE, OWNER, CHALLENGER, 0)}
    assert by_address(drawn) == drawn_by_mirror(jury, id_, frozen, barred)


def test_the_client_to_be_refunded_does_not_judge(jury):
    jury.join(CLIENT, 300 * SEAT_STAKE)
    tranche = jury.open(CLIENT, {NODE: ONE_NECTAR})
    frozen = stakes(jury)
    id_ = jury.accuse(tranche=tranche.id, harm=1)
    drawn = jury.draw(id_)
    assert CLIENT not in drawn
    barred = {accounts[i].address for i in (NODE, OWNER, CHALLENGER, CLIENT)}
    assert by_address(drawn) == drawn_by_mirror(jury, id_, frozen, barred)


def test_naming_an_owner_after_the_accusation_bars_nobody(jury):
    """Else an accuser that dislikes who is about to be drawn would name that juror as its owner."""
    frozen = stakes(jury)
    id_ = jury.accuse()
    chain.mine(1)
    expected = drawn_by_mirror(jury, id_, frozen)
    victim = next(iter(expected))
    jury.grant(CHALLENGER, SEAT_STAKE, jury.pool)
    jury.pool.join(victim, SEAT_STAKE, {"from": accounts[CHALLENGER]})
    assert by_address(jury.draw(id_)) == expected


def test_without_jurors_a_jury_is_empty_and_the_dispute_a_draw(jury):
    for juror in JURORS:
        jury.pool.beginLeave(accounts[juror], STAKES[juror], {"from": accounts[juror]})
    id_ = jury.accuse()
    assert jury.draw(id_) == {}
    pass_time(jury.current(id_)["revealUntil"] + 1)
    jury.disputes.conclude(id_, {"from": accounts[0]})
    assert jury.credit(CHALLENGER) == jury.disputes.bondOf(0)


# ---- stake ----


def test_joining(jury):
    assert (jury.juror(7)["owner"], jury.juror(7)["stake"]) == (accounts[7], STAKES[7])
    assert [jury.pool.jurorAt(leaf) for leaf in range(7)] == [
        ZERO_ADDRESS,
        *(accounts[juror] for juror in JURORS),
        ZERO_ADDRESS,
    ]
    with reverts("AlreadyJoined"):
        jury.join(7, SEAT_STAKE)
    with reverts("JurorStakeTooSmall", SEAT_STAKE, SEAT_STAKE - 1):
        jury.join(2, SEAT_STAKE - 1)
    with reverts("AddressIsZero"):
        jury.pool.join(ZERO_ADDRESS, SEAT_STAKE, {"from": accounts[2]})
    with reverts("NotAJuror"):
        jury.pool.addStake(accounts[2], SEAT_STAKE, {"from": accounts[2]})


def test_leaving_takes_the_delay_and_only_the_owner_may_begin(jury):
    jury.join(2, 5 * SEAT_STAKE, owner=3)
    with reverts("NotJurorsOwner"):
        jury.pool.beginLeave(accounts[2], SEAT_STAKE, {"from": accounts[2]})
    with reverts("JurorStakeTooSmall", SEAT_STAKE, SEAT_STAKE - 1):
        jury.pool.beginLeave(accounts[2], 4 * SEAT_STAKE + 1, {"from": accounts[3]})
    for wrong in (0, 5 * SEAT_STAKE + 1):
        with reverts("JurorStakeInsufficient", 5 * SEAT_STAKE, wrong):
            jury.pool.beginLeave(accounts[2], wrong, {"from": accounts[3]})
    with reverts("NothingUnbonding"):
        jury.pool.withdrawStake(accounts[2], {"from": accounts[3]})
    at = jury.pool.beginLeave(accounts[2], 5 * SEAT_STAKE, {"from": accounts[3]}).timestamp + JUROR_UNBONDING
    with reverts("StillUnbonding", at):
        jury.pool.withdrawStake(accounts[2], {"from": accounts[3]})
    pass_time(at)
    with reverts("NotJurorsOwner"):
        jury.pool.withdrawStake(accounts[2], {"from": accounts[8]})
    jury.pool.withdrawStake(accounts[2], {"from": accounts[2]})
    assert jury.token.balanceOf(accounts[3]) == 5 * SEAT_STAKE
    jury.grant(2, SEAT_STAKE, jury.pool)
    jury.pool.addStake(accounts[2], SEAT_STAKE, {"from": accounts[2]})  # and may come back to its old leaf
    assert (jury.juror(2)["leaf"], jury.juror(2)["stake"]) == (6, SEAT_STAKE)


def test_stake_behind_a_seat_stays_until_the_dispute_is_settled(jury):
    id_ = jury.accuse()
    drawn = jury.draw(id_)
    juror, seats = next(iter(drawn.items()))
    assert jury.juror(juror)["locked"] == seats * SEAT_STAKE
    at = jury.pool.beginLeave(accounts[juror], STAKES[juror], {"from": accounts[juror]}).timestamp + JUROR_UNBONDING
    pass_time(at)
    jury.pool.withdrawStake(accounts[juror], {"from": accounts[juror]})
    assert jury.juror(juror)["unbonding"] == seats * SEAT_STAKE
    with reverts("StakeBehindSeats", seats * SEAT_STAKE):
        jury.pool.withdrawStake(accounts[juror], {"from": accounts[juror]})
    jury.disputes.conclude(id_, {"from": accounts[0]})
    jury.settle(id_, [juror])
    jury.pool.withdrawStake(accounts[juror], {"from": accounts[juror]})
    # It did not vote: a tenth of what stood behind its seats is gone, though it was leaving.
    assert jury.token.balanceOf(accounts[juror]) == STAKES[juror] - seats * SEAT_STAKE // 10


def test_nobody_but_the_jury_moves_jurors_stake(jury):
    stranger = {"from": accounts[8]}
    for call in (
        lambda: jury.pool.freeze(stranger),
        lambda: jury.pool.lock([accounts[7]], [1], 1, stranger),
        lambda: jury.pool.release(accounts[7], 0, 1, stranger),
        lambda: jury.pool.forfeit(1, stranger),
        lambda: jury.pool.setMinStake(1, stranger),
    ):
        with reverts("NotDisputes"):
            call()


# ---- parameters ----


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("bond", (0, 10**24 + 1)),
        ("minJurorStake", (9_999, 10**24 + 1)),
        ("drawPeriod", (0,)),
        ("commitPeriod", (0,)),
        ("revealPeriod", (0,)),
        ("appealPeriod", (0, 7 * DAY)),
        ("jailPeriod", (0, 60 * DAY + 1)),
        ("slashBps", (1_999, 10_001)),
        ("challengerBps", (99, 3_001)),
        ("juryBps", (99, 2_001)),
        ("penaltyBps", (99, 1_001)),
    ],
)
def test_governance_cannot_leave_the_bounds(jury, name, values):
    for value in values:
        with reverts("OutOfBounds"):
            jury.disputes.setParameters.call(terms(**{name: value}), {"from": jury.timelock})


def test_parameters_are_the_timelocks_and_leave_open_disputes_alone(jury):
    with reverts("OwnableUnauthorizedAccount"):
        jury.disputes.setParameters(terms(), {"from": accounts[0]})
    before = jury.accuse()
    jury.govern(jury.disputes, jury.disputes.setParameters.encode_input(terms(slashBps=10_000, commitPeriod=60)))
    assert jury.disputes.parameters()["slashBps"] == 10_000
    assert jury.disputes.dispute(before)["terms"] + 1 == jury.disputes.dispute(jury.accuse())["terms"]
    jury.jury_votes(before, FAULTY)
    jury.conclude(before)
    assert jury.registry.nodeOf(accounts[NODE])["stake"] == MIN_STAKE // 2


def test_a_dispute_must_be_over_before_stake_can_leave(jury):
    """Shorter than the registry's delay less the audit window, the jurors' own delay, and seven days."""
    assert jury.disputes.longestDispute() == LONGEST
    setting = lambda **changes: jury.disputes.setParameters.call(terms(**changes), {"from": jury.timelock})  # noqa: E731
    with reverts("OutOfBounds", LONGEST + 2 * (4 * DAY - APPEAL), 0, 7 * DAY):
        setting(appealPeriod=4 * DAY)
    jury.registry.setUnbondingDelay(2 * DAY + LONGEST, {"from": accounts[0]})
    with reverts("OutOfBounds", LONGEST, 0, LONGEST - 1):
        setting()
    jury.registry.setUnbondingDelay(2 * DAY + LONGEST + 1, {"from": accounts[0]})
    setting()
    jury.registry.setUnbondingDelay(DAY, {"from": accounts[0]})  # less than the audit window alone
    with reverts("OutOfBounds", LONGEST, 0, 0):
        setting()
    jury.registry.setUnbondingDelay(UNBONDING, {"from": accounts[0]})


def test_a_jury_whose_jurors_could_leave_too_soon_or_never_is_not_deployed(jury, project):
    for unbonding in (LONGEST, 60 * DAY + 1):
        with reverts("OutOfBounds"):
            accounts[0].deploy(
                project.Disputes, jury.token, jury.registry, jury.escrow, jury.timelock, unbonding, terms()
            )
