"""Validators commit to scores, reveal them, and what a majority of their stake says counts."""

from __future__ import annotations

from random import Random

import pytest
from brownie import accounts
from validators import (
    COMMITTING,
    MAX_ABOVE,
    ORACLE_PARAMETERS,
    REVEAL,
    REVEALING,
    VALIDATOR_STAKE,
    commitment,
    deploy_oracle,
    govern,
    later,
)
from world import DAY, ONE_NECTAR, reverts

NODE, OTHER = 9, 10
STAKES = {4: 100 * ONE_NECTAR, 5: 150 * ONE_NECTAR, 6: 300 * ONE_NECTAR, 7: 120 * ONE_NECTAR}
NAMES = ("commitSeconds", "revealSeconds", "maxAbove", "minRatings", "minValidatorStake", "minTotalStake")
BOUNDS = {
    "commitSeconds": (1, 7 * DAY),
    "revealSeconds": (1, 7 * DAY),
    "maxAbove": (0, 16_383),
    "minRatings": (1, 32),
    "minValidatorStake": (1, 10**6 * ONE_NECTAR),
    "minTotalStake": (1, 10**8 * ONE_NECTAR),
}


def with_(name, value):
    return tuple(value if field == name else old for field, old in zip(NAMES, ORACLE_PARAMETERS, strict=True))


@pytest.fixture(scope="module")
def seated(deployed, project):
    return deploy_oracle(project, deployed, STAKES)


@pytest.fixture
def validators(seated, fn_isolation):
    seated.next_epoch()
    return seated


# ---- the consensus ----


def test_the_score_is_the_stake_weighted_median(validators):
    epoch = validators.rate({4: {NODE: 10_000}, 5: {NODE: 20_000}, 6: {NODE: 30_000}, 7: {NODE: 65_535}})
    tx = validators.settle(epoch, NODE)
    assert validators.score_of(NODE) == (30_000, epoch)
    settled = validators.oracle.settledOf(accounts[NODE])
    # 65,535 is more than MAX_ABOVE over the median: it counts as the median.
    total = sum(STAKES.values())
    mean = (STAKES[4] * 10_000 + STAKES[5] * 20_000 + (STAKES[6] + STAKES[7]) * 30_000) // total
    assert (settled["rank"], settled["ratings"], settled["clipped"], settled["stake"]) == (mean, 4, 1, total)
    assert tx.events["ScoreSettled"]["score"] == 30_000


def test_half_of_the_stake_cannot_raise_a_score_alone(validators):
    epoch = validators.rate({5: {NODE: 1_000}, 6: {NODE: 60_000}, 4: {NODE: 1_000}})
    validators.world.stake(8, 50 * ONE_NECTAR + VALIDATOR_STAKE)
    validators.settle(epoch, NODE)
    assert validators.score_of(NODE)[0] == 60_000  # 300 of 550
    epoch = validators.rate({5: {NODE: 1_000}, 6: {NODE: 60_000}, 8: {NODE: 1_000}})
    validators.settle(epoch, NODE)
    assert validators.score_of(NODE)[0] == 1_000  # 300 of 600


def reference(ratings, max_above):
    """The formulas of IReputationOracle, another way."""
    total = sum(stake for stake, _ in ratings)
    score = max(w for _, w in ratings if 2 * sum(s for s, v in ratings if v >= w) > total)
    clipped = [(s, score if w > score + max_above else w) for s, w in ratings]
    count = sum(w > score + max_above for _, w in ratings)
    return score, sum(s * w for s, w in clipped) // total, count


@pytest.mark.parametrize("seed", range(25))
def test_solidity_and_python_agree_on_the_consensus(seed, project, module_isolation):
    harness = accounts[0].deploy(project.MedianHarness)
    rng = Random(seed)
    for count in (1, 2, rng.randint(3, 31), 32):
        scores = [0, 65_535, *(rng.randrange(65_536) for _ in range(3))]
        ratings = [
            (rng.choice([1, 2, 3, rng.randint(1, 2**90)]), rng.choice([*scores, rng.randrange(65_536)]))
            for _ in range(count)
        ]
        max_above = rng.choice([0, 100, 16_383])
        assert tuple(harness.consensus(ratings, max_above)) == reference(ratings, max_above)


@pytest.mark.parametrize("seed", range(5))
def test_a_minority_moves_neither_score_nor_rank_past_the_majority(seed, project, module_isolation):
    harness = accounts[0].deploy(project.MedianHarness)
    rng = Random(seed)
    honest = [(rng.randint(50, 100), rng.randint(20_000, 30_000)) for _ in range(8)]
    power = sum(stake for stake, _ in honest) - 1
    for lie in (0, 65_535):
        score, rank, _ = harness.consensus([*honest, (power // 2, lie), (power - power // 2, lie)], MAX_ABOVE)
        assert 20_000 <= score <= 30_000
        assert rank <= 30_000 + MAX_ABOVE


# ---- commit and reveal ----


def test_epochs_follow_each_other_in_two_phases(validators):
    epoch, phase, until = validators.oracle.epochNow()
    assert phase == COMMITTING
    validators.next_phase()
    assert validators.oracle.epochNow() == (epoch, REVEALING, until + REVEAL)
    validators.next_phase()
    assert validators.oracle.epochNow()[:2] == (epoch + 1, COMMITTING)


def test_each_phase_takes_only_what_is_its_own(validators):
    validators.commit(4, {NODE: 1})
    with reverts("WrongPhase", COMMITTING):
        validators.reveal(4, {NODE: 1})
    validators.next_phase()
    with reverts("WrongPhase", REVEALING):
        validators.commit(5, {NODE: 1})
    validators.next_phase()
    with reverts("WrongPhase", COMMITTING):
        validators.reveal(4, {NODE: 1})


def test_only_staked_active_nodes_are_validators(validators):
    with reverts("NotValidator", accounts[8].address.lower(), VALIDATOR_STAKE, 0):
        validators.commit(8, {NODE: 1})
    validators.world.registry.jail(accounts[4], 2**64 - 1, {"from": accounts[0]})
    with reverts("NotValidator"):
        validators.commit(4, {NODE: 1})


def test_a_validator_that_unstakes_before_it_reveals_has_no_voice(validators):
    validators.commit(5, {NODE: 1})
    validators.commit(6, {NODE: 1})
    unstake = validators.world.registry.beginUnstake
    unstake(accounts[5], STAKES[5] - 1, {"from": accounts[5]})
    unstake(accounts[6], 100 * ONE_NECTAR, {"from": accounts[6]})
    validators.next_phase()
    with reverts("NotValidator"):
        validators.reveal(5, {NODE: 1})
    validators.reveal(6, {NODE: 1})
    assert validators.oracle.ratingsOf(validators.epoch, accounts[NODE]) == (1, 200 * ONE_NECTAR)


def test_stake_added_after_a_commitment_adds_no_weight_to_it(validators):
    validators.commit(4, {NODE: 1})
    validators.world.token.approve(validators.world.registry, ONE_NECTAR, {"from": accounts[0]})
    validators.world.registry.addStake(accounts[4], ONE_NECTAR, {"from": accounts[0]})
    validators.next_phase()
    validators.reveal(4, {NODE: 1})
    assert validators.oracle.ratingsOf(validators.epoch, accounts[NODE]) == (1, STAKES[4])


def test_a_commitment_binds_to_scores_salt_epoch_and_validator(validators):
    validators.commit(4, {NODE: 1})
    # 5 copies what 4 committed, 6 commits for another epoch.
    validators.oracle.commit(commitment(validators.epoch, 4, {NODE: 1}), {"from": accounts[5]})
    validators.commit(6, {NODE: 1}, epoch=validators.epoch + 1)
    validators.next_phase()
    for validator, scores, salt in (
        (4, {NODE: 2}, b"\x07" * 32),
        (4, {NODE: 1}, bytes(32)),
        (4, {OTHER: 1}, b"\x07" * 32),
    ):
        with reverts("CommitmentMismatch"):
            validators.reveal(validator, scores, salt)
    for validator in (5, 6):
        with reverts("CommitmentMismatch"):
            validators.reveal(validator, {NODE: 1})
    with reverts("NothingCommitted"):
        validators.reveal(7, {NODE: 1})
    validators.reveal(4, {NODE: 1})
    with reverts("AlreadyRevealed"):
        validators.reveal(4, {NODE: 1})


def test_a_validator_commits_once_an_epoch(validators):
    validators.commit(4, {NODE: 1})
    with reverts("AlreadyCommitted"):
        validators.commit(4, {NODE: 2})
    validators.next_epoch()
    validators.commit(4, {NODE: 2})


def reveal_raw(validators, validator, nodes, scores):
    """Commits and reveals columns as they are."""
    from eth_abi import encode
    from eth_utils import keccak

    inner = keccak(encode(["address[]", "uint16[]"], [nodes, scores]))
    words = [validators.epoch, accounts[validator].address, inner, bytes(32)]
    value = keccak(encode(["uint64", "address", "bytes32", "bytes32"], words))
    validators.oracle.commit(value, {"from": accounts[validator]})
    validators.next_phase()
    return validators.oracle.reveal(nodes, scores, bytes(32), {"from": accounts[validator]})


def addresses(*numbers):
    return ["0x" + f"{number:040x}" for number in numbers]


@pytest.mark.parametrize(
    ("nodes", "scores", "error"),
    [
        ([], [], "LengthInvalid"),
        (addresses(*range(1, 66)), [1] * 65, "LengthInvalid"),
        (addresses(1, 2), [1], "LengthsDiffer"),
        (addresses(2, 1), [1, 1], "NodesNotAscending"),
        (addresses(1, 1), [1, 1], "NodesNotAscending"),
        (addresses(0), [1], "NodesNotAscending"),
    ],
)
def test_columns_that_are_not_a_list_of_nodes_are_refused(validators, nodes, scores, error):
    with reverts(error):
        reveal_raw(validators, 4, nodes, scores)


def test_nobody_rates_itself(validators):
    with reverts("SelfRating"):
        reveal_raw(validators, 4, [accounts[4].address], [65_535])


def test_a_commitment_never_revealed_is_counted(validators):
    for _ in range(2):
        validators.commit(4, {NODE: 1})
        assert validators.oracle.recordOf(accounts[4])[1] == validators.oracle.recordOf(accounts[4])[0] - 1
        validators.next_epoch()
    assert validators.oracle.recordOf(accounts[4]) == (2, 2)
    validators.rate({4: {NODE: 1}})
    assert validators.oracle.recordOf(accounts[4]) == (3, 2)
    assert validators.oracle.recordOf(accounts[8]) == (0, 0)


def test_a_validator_that_starts_again_sees_what_it_committed_and_whether_it_revealed(validators):
    seat_of = validators.oracle.seatOf
    assert tuple(seat_of(accounts[4])) == (0, "0x" + "00" * 32, False)
    epoch = validators.epoch
    validators.commit(4, {NODE: 1})
    committed = "0x" + commitment(epoch, 4, {NODE: 1}).hex()
    assert tuple(seat_of(accounts[4])) == (epoch, committed, False)
    validators.next_phase()
    validators.reveal(4, {NODE: 1})
    assert tuple(seat_of(accounts[4])) == (epoch, committed, True)
    validators.next_epoch()
    validators.commit(4, {NODE: 2})
    assert tuple(seat_of(accounts[4])) == (epoch + 1, "0x" + commitment(epoch + 1, 4, {NODE: 2}).hex(), False)


# ---- settling ----


def test_an_epoch_is_settled_only_once_it_is_over(validators):
    validators.commit(4, {NODE: 1})
    validators.next_phase()
    validators.reveal(4, {NODE: 1})
    with reverts("EpochNotOver"):
        validators.settle(validators.epoch, NODE)


def test_too_few_validators_or_too_little_stake_make_no_score(validators):
    epoch = validators.rate({6: {NODE: 1, OTHER: 1}, 4: {OTHER: 1}, 7: {8: 1}, 5: {8: 1}})
    with reverts("TooFewRatings", 1, STAKES[6]):
        validators.settle(epoch, NODE)
    validators.settle(epoch, OTHER, 8)
    epoch = validators.rate({4: {NODE: 1}, 7: {NODE: 1}})
    with reverts("TooFewRatings", 2, STAKES[4] + STAKES[7]):
        validators.settle(epoch, NODE)
    assert validators.score_of(NODE) == (0, 0)


def test_settling_again_or_late_changes_nothing(validators):
    first = validators.rate({5: {NODE: 10, OTHER: 1}, 6: {NODE: 10, OTHER: 1}})
    second = validators.rate({5: {NODE: 20}, 6: {NODE: 20}})
    validators.settle(second, NODE)
    tx = validators.settle(first, NODE, OTHER)
    assert [event["node"] for event in tx.events["ScoreSettled"]] == [accounts[OTHER]]
    assert "ScoreSettled" not in validators.settle(second, NODE).events
    nodes = [accounts[NODE], accounts[OTHER], accounts[8]]
    assert validators.oracle.scoresOf(nodes) == ((20, 1, 0), (second, first, 0))


def test_settling_takes_a_bounded_list(validators):
    for nodes in ([], [accounts[1]] * 65):
        with reverts("LengthInvalid"):
            validators.oracle.settle(1, nodes, {"from": accounts[1]})


# ---- governance ----


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_reaches_its_bounds_and_stops_there(validators, name):
    lowest, highest = BOUNDS[name]
    owner = {"from": accounts.at(validators.world.timelock, force=True), "gas_price": 0, "required_confs": 0}
    for value in (lowest, highest):
        validators.oracle.setParameters.call(with_(name, value), owner)
    for value in [highest + 1] + ([lowest - 1] if lowest else []):
        with reverts("OutOfBounds", value, lowest, highest):
            validators.oracle.setParameters.call(with_(name, value), owner)


def test_nobody_but_the_timelock_sets_the_parameters(validators):
    with reverts("OwnableUnauthorizedAccount"):
        validators.oracle.setParameters(ORACLE_PARAMETERS, {"from": accounts[0]})


def test_new_phases_begin_with_the_next_epoch(validators):
    epoch, _phase, until = validators.oracle.epochNow()
    longer = (2 * DAY, DAY, *ORACLE_PARAMETERS[2:])
    govern(validators, longer)
    assert validators.oracle.epochNow() == (epoch, COMMITTING, until)
    assert validators.oracle.parameters() == longer
    validators.next_epoch()
    assert validators.oracle.epochNow() == (epoch + 1, COMMITTING, until + REVEAL + 2 * DAY)
    later(7 * DAY)
    assert validators.oracle.epochNow()[0] == epoch + 3
    govern(validators, ORACLE_PARAMETERS)
    validators.next_epoch()
    assert validators.oracle.epochNow()[0] == epoch + 4


def test_deployment_refuses_a_missing_registry_and_bad_parameters(validators, project):
    nowhere = "0x" + "0" * 40
    deploy = lambda *arguments: accounts[0].deploy(project.ReputationOracle, *arguments)  # noqa: E731
    with reverts("AddressIsZero"):
        deploy(nowhere, accounts[0], ORACLE_PARAMETERS)
    with reverts("OutOfBounds"):
        deploy(validators.world.registry, accounts[0], with_("minRatings", 0))
