"""What rating nodes and voting costs; test_gas.py puts it on file."""

from __future__ import annotations

from typing import Any

from brownie import accounts, chain
from validators import deploy_oracle
from world import ONE_NECTAR, PARAMETERS, World

RATERS = range(5, 10)
NODES = {0: 60_000, 1: 61_000, 2: 62_000, 10: 63_000}


def reputation_gas(project: Any, world: World) -> dict[str, int]:
    """Five validators rate four nodes for an epoch, and it is settled."""
    validators = deploy_oracle(project, world, dict.fromkeys(RATERS, 200 * ONE_NECTAR))
    gas = {"deploy ReputationOracle": validators.oracle.tx.gas_used}
    epoch = validators.epoch
    committed = [validators.commit(rater, NODES) for rater in RATERS]
    validators.next_phase()
    revealed = [validators.reveal(rater, NODES) for rater in RATERS]
    validators.next_phase()
    gas["commit scores, first"] = committed[0].gas_used
    gas["reveal scores of 4 nodes, first rating of each"] = revealed[0].gas_used
    gas["reveal scores of 4 nodes, fifth rating of each"] = revealed[-1].gas_used
    gas["settle 4 nodes of 5 ratings, first"] = validators.settle(epoch, *NODES).gas_used
    epoch = validators.rate(dict.fromkeys(RATERS, NODES))
    gas["settle 4 nodes of 5 ratings, again"] = validators.settle(epoch, *NODES).gas_used
    return gas


def governor_gas(project: Any, world: World, deployer: Any) -> dict[str, int]:
    """One proposal to change the escrow, proposed and voted on by one holder."""
    terms = (1, 5, 1_000 * ONE_NECTAR, 4)
    governor = deployer.deploy(project.NectarGovernor, world.token, world.timelock, *terms)
    gas = {"deploy NectarGovernor": governor.tx.gas_used}
    holder = {"from": accounts[11]}
    gas["delegate votes to oneself"] = world.token.delegate(accounts[11], holder).gas_used
    chain.mine(1)
    call = world.escrow.setParameters.encode_input(PARAMETERS)
    tx = governor.propose([world.escrow.address], [0], [call], "because", holder)
    gas["propose new parameters of the escrow"] = tx.gas_used
    chain.mine(2)
    gas["cast a vote"] = governor.castVote(tx.events["ProposalCreated"]["proposalId"], 1, holder).gas_used
    return gas
