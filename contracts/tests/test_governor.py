"""Nectar's holders move parameters through the timelock, within bounds that no vote widens."""

from __future__ import annotations

import pytest
from brownie import accounts, chain, web3
from eth_utils import keccak
from world import ONE_NECTAR, PARAMETERS, reverts

DELAY, PERIOD, THRESHOLD, QUORUM = 3, 10, 1_000 * ONE_NECTAR, 4
TERMS = (DELAY, PERIOD, THRESHOLD, QUORUM)
ENOUGH = 5 * 10**6 * ONE_NECTAR  # of a supply of 10**8
AGAINST, FOR = 0, 1
PENDING, ACTIVE, DEFEATED, SUCCEEDED, QUEUED, EXECUTED = 0, 1, 3, 4, 5, 7
VOTER, POOR, NOBODY = 5, 6, 8


@pytest.fixture(scope="module")
def founded(deployed, project):
    governor = accounts[0].deploy(project.NectarGovernor, deployed.token, deployed.timelock, *TERMS)
    timelock = deployed.timelock
    for role in ("PROPOSER_ROLE", "CANCELLER_ROLE", "EXECUTOR_ROLE"):
        deployed.govern(timelock, timelock.grantRole.encode_input(getattr(timelock, role)(), governor))
    for voter, amount in ((VOTER, ENOUGH), (POOR, THRESHOLD - 1)):
        deployed.token.transfer(accounts[voter], amount, {"from": accounts[0]})
        deployed.token.delegate(accounts[voter], {"from": accounts[voter]})
    chain.mine(1)
    return governor


@pytest.fixture
def governor(founded, fn_isolation):
    return founded


class Proposal:
    """One call that account `by` proposed."""

    def __init__(self, governor, target, call, *, by=VOTER, text="because"):
        self.governor = governor
        self.action = ([target.address], [0], [call])
        self.hash = keccak(text=text)
        tx = governor.propose(*self.action, text, {"from": accounts[by]})
        self.id = tx.events["ProposalCreated"]["proposalId"]

    @property
    def state(self):
        return self.governor.state(self.id)

    def vote(self, support, *, by=VOTER):
        """Once voting has begun."""
        if self.state == PENDING:
            chain.mine(DELAY + 1)
        return self.governor.castVote(self.id, support, {"from": accounts[by]})

    def close(self):
        chain.mine(PERIOD + 1)

    def queue(self):
        return self.governor.queue(*self.action, self.hash, {"from": accounts[NOBODY]})

    def execute(self):
        return self.governor.execute(*self.action, self.hash, {"from": accounts[NOBODY]})

    def pass_(self):
        """Votes it through and into the timelock, and waits there."""
        self.vote(FOR)
        self.close()
        self.queue()
        chain.sleep(61)
        chain.mine(1)


def new_fee(world, bps):
    return world.escrow.setParameters.encode_input([bps, *PARAMETERS[1:]])


def test_a_proposal_changes_the_escrow_through_the_timelock(governor, world):
    proposal = Proposal(governor, world.escrow, new_fee(world, 123))
    proposal.vote(FOR)
    assert proposal.state == ACTIVE
    proposal.close()
    assert proposal.state == SUCCEEDED
    proposal.queue()
    with reverts("TimelockUnexpectedOperationState"):
        proposal.execute()
    chain.sleep(61)
    proposal.execute()
    assert proposal.state == EXECUTED
    assert world.escrow.parameters()["feeBps"] == 123


def test_a_value_out_of_bounds_is_refused_when_it_is_executed(governor, world):
    proposal = Proposal(governor, world.escrow, new_fee(world, 501))
    proposal.pass_()
    with reverts("OutOfBounds", 501, 0, 500):
        proposal.execute()
    assert proposal.state == QUEUED
    assert world.escrow.parameters()["feeBps"] == PARAMETERS[0]


SETTERS = {
    "setVotingDelay": (1, 50_400),
    "setVotingPeriod": (2, 216_000),
    "setProposalThreshold": (ONE_NECTAR, 10**7 * ONE_NECTAR),
    "updateQuorumNumerator": (1, 20),
}


@pytest.mark.parametrize("setter", SETTERS)
def test_the_governors_own_settings_reach_their_bounds_and_stop_there(governor, world, setter):
    lowest, highest = SETTERS[setter]
    function = getattr(governor, setter)
    proposal = Proposal(governor, governor, function.encode_input(highest), text="highest")
    too_much = Proposal(governor, governor, function.encode_input(highest + 1), text="more")
    too_little = Proposal(governor, governor, function.encode_input(lowest - 1), text="less")
    for each in (proposal, too_much, too_little):
        each.vote(FOR)
    proposal.close()
    for each in (proposal, too_much, too_little):
        each.queue()
    chain.sleep(61)
    chain.mine(1)
    with reverts("OutOfBounds", highest + 1, lowest, highest):
        too_much.execute()
    with reverts("OutOfBounds", lowest - 1, lowest, highest):
        too_little.execute()
    proposal.execute()


def test_only_the_timelock_changes_the_governor(governor):
    for account in (accounts[0], accounts[VOTER]):
        with reverts("GovernorOnlyExecutor"):
            governor.setVotingDelay(2, {"from": account})


@pytest.mark.parametrize(
    "terms",
    [(0, *TERMS[1:]), (DELAY, 1, *TERMS[2:]), (DELAY, PERIOD, ONE_NECTAR - 1, QUORUM), (DELAY, PERIOD, THRESHOLD, 21)],
)
def test_it_cannot_be_deployed_out_of_bounds(world, project, terms):
    with reverts("OutOfBounds"):
        accounts[0].deploy(project.NectarGovernor, world.token, world.timelock, *terms)


def test_a_vote_with_borrowed_tokens_counts_nothing(governor, world, project):
    thief = accounts[NOBODY].deploy(project.FlashVoter)
    world.token.approve(thief, 2**255, {"from": accounts[0]})
    loan = (world.token, accounts[0], 5 * ENOUGH)
    with reverts("GovernorInsufficientProposerVotes", 0, THRESHOLD):
        thief.propose(*loan, governor, {"from": accounts[NOBODY]})
    proposal = Proposal(governor, world.escrow, new_fee(world, 123))
    chain.mine(DELAY + 1)
    tx = thief.vote(*loan, governor, proposal.id, {"from": accounts[NOBODY]})
    assert tx.events["Voted"]["weight"] == 0
    proposal.close()
    assert proposal.state == DEFEATED


def test_tokens_bought_after_voting_began_do_not_vote(governor, world):
    proposal = Proposal(governor, world.escrow, new_fee(world, 123))
    chain.mine(DELAY + 1)
    world.token.transfer(accounts[7], ENOUGH, {"from": accounts[0]})
    world.token.delegate(accounts[7], {"from": accounts[7]})
    proposal.vote(FOR, by=7)
    assert governor.proposalVotes(proposal.id)["forVotes"] == 0


def test_proposing_takes_tokens_and_passing_takes_a_quorum(governor, world):
    with reverts("GovernorInsufficientProposerVotes", THRESHOLD - 1, THRESHOLD):
        Proposal(governor, world.escrow, new_fee(world, 1), by=POOR)
    proposal = Proposal(governor, world.escrow, new_fee(world, 1))
    proposal.vote(FOR, by=POOR)
    proposal.close()
    assert proposal.state == DEFEATED
    with reverts("GovernorUnexpectedProposalState"):
        proposal.queue()


def test_a_proposal_voted_down_is_not_queued(governor, world):
    proposal = Proposal(governor, world.escrow, new_fee(world, 1))
    proposal.vote(AGAINST)
    proposal.vote(FOR, by=POOR)
    proposal.close()
    assert proposal.state == DEFEATED


def test_it_counts_time_as_the_token_does(governor, world):
    assert governor.clock() == world.token.clock() == web3.eth.block_number
    assert governor.CLOCK_MODE() == world.token.CLOCK_MODE()
    assert governor.proposalNeedsQueuing(1)
    assert governor.timelock() == world.timelock
