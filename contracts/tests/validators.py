"""A ReputationOracle with staked validators in front of it. Tests speak through this: commit, reveal, settle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from brownie import accounts, chain
from eth_abi import encode
from eth_utils import keccak
from world import ONE_NECTAR, World, now, pass_time

COMMIT, REVEAL = 600, 300
MAX_ABOVE = 6_553
MIN_RATINGS = 2
VALIDATOR_STAKE, TOTAL_STAKE = 100 * ONE_NECTAR, 250 * ONE_NECTAR
ORACLE_PARAMETERS = (COMMIT, REVEAL, MAX_ABOVE, MIN_RATINGS, VALIDATOR_STAKE, TOTAL_STAKE)
SALT = b"\x07" * 32
COMMITTING, REVEALING = 0, 1


def commitment(epoch: int, validator: int, scores: dict[int, int], salt: bytes = SALT) -> bytes:
    """What account `validator` commits to: scores by the account index of the node."""
    nodes, values = columns(scores)
    inner = keccak(encode(["address[]", "uint16[]"], [nodes, values]))
    return keccak(
        encode(["uint64", "address", "bytes32", "bytes32"], [epoch, accounts[validator].address, inner, salt])
    )


def columns(scores: dict[int, int]) -> tuple[list[str], list[int]]:
    """Nodes ascending, and their scores beside them."""
    rows = sorted((int(accounts[node].address, 16), accounts[node].address, score) for node, score in scores.items())
    return [row[1] for row in rows], [row[2] for row in rows]


@dataclass
class Validators:
    world: World
    oracle: Any

    @property
    def epoch(self) -> int:
        return int(self.oracle.epochNow()["epoch"])

    def next_phase(self) -> None:
        """Goes to the first second of the next phase."""
        pass_time(self.oracle.epochNow()["until"])

    def next_epoch(self) -> None:
        """Goes to the commit phase of the next epoch."""
        epoch = self.epoch
        while self.epoch == epoch:
            self.next_phase()

    def commit(self, validator: int, scores: dict[int, int], **changes: Any) -> Any:
        value = commitment(changes.get("epoch", self.epoch), validator, scores, changes.get("salt", SALT))
        return self.oracle.commit(value, {"from": accounts[changes.get("by", validator)]})

    def reveal(self, validator: int, scores: dict[int, int], salt: bytes = SALT) -> Any:
        nodes, values = columns(scores)
        return self.oracle.reveal(nodes, values, salt, {"from": accounts[validator]})

    def rate(self, ratings: dict[int, dict[int, int]]) -> int:
        """A whole epoch, from its commit phase into the next one's: scores by validator. Returns the epoch."""
        epoch = self.epoch
        for validator, scores in ratings.items():
            self.commit(validator, scores)
        self.next_phase()
        for validator, scores in ratings.items():
            self.reveal(validator, scores)
        self.next_phase()
        return epoch

    def settle(self, epoch: int, *nodes: int, by: int = 11) -> Any:
        return self.oracle.settle(epoch, [accounts[node] for node in nodes], {"from": accounts[by]})

    def score_of(self, node: int) -> tuple[int, int]:
        return tuple(self.oracle.scoreOf(accounts[node]))


def deploy_oracle(project: Any, world: World, stakes: dict[int, int]) -> Validators:
    """The oracle over the world's registry, with validators (account index → stake) staked there."""
    for account, stake in stakes.items():
        world.stake(account, stake)
    oracle = accounts[0].deploy(project.ReputationOracle, world.registry, world.timelock, ORACLE_PARAMETERS)
    return Validators(world, oracle)


def govern(validators: Validators, parameters: tuple[int, ...]) -> Any:
    call = validators.oracle.setParameters.encode_input(parameters)
    return validators.world.govern(validators.oracle, call)


def later(seconds: int) -> None:
    chain.mine(timestamp=now() + seconds)
