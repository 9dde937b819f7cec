"""A node keeps the ratings with the most stake behind them, and settling the most it can keep fits in a block."""

from __future__ import annotations

from brownie import accounts
from validators import VALIDATOR_STAKE, deploy_oracle
from world import ONE_NECTAR

NODE, FIRST, MOST = 9, 12, 32


def test_small_validators_cannot_crowd_out_large_ones(deployed, project, fn_isolation):
    crowd = list(range(FIRST, FIRST + MOST + 1))
    for account in crowd:
        if len(accounts) <= account:
            accounts.add()
        accounts[0].transfer(accounts[account], 10**18)
    whale, others = crowd[-1], crowd[:-1]
    stakes = dict.fromkeys(others, VALIDATOR_STAKE) | {whale: 100 * VALIDATOR_STAKE, 4: VALIDATOR_STAKE + ONE_NECTAR}
    validators = deploy_oracle(project, deployed, stakes)
    scores = {account: {NODE: number} for number, account in enumerate(others)} | {whale: {NODE: 777}, 4: {NODE: 888}}
    for account, ratings in scores.items():
        validators.commit(account, ratings)
    epoch = validators.epoch
    validators.next_phase()
    for account in (*others, whale, 4):
        tx = validators.reveal(account, scores[account])
    assert tx.events["RatingCrowdedOut"]["stake"] == VALIDATOR_STAKE
    kept = (MOST - 2) * VALIDATOR_STAKE + 100 * VALIDATOR_STAKE + VALIDATOR_STAKE + ONE_NECTAR
    assert validators.oracle.ratingsOf(epoch, accounts[NODE]) == (MOST, kept)
    validators.next_phase()
    tx = validators.settle(epoch, NODE)
    assert validators.score_of(NODE) == (777, epoch)
    assert tx.gas_used < 30_000_000 // 64 * 2  # half of the most nodes of a call fit in a block
