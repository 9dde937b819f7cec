"""Stake over random histories: the registry holds what its nodes are owed, locks hold, slashes reach everything."""

from __future__ import annotations

from random import Random

import pytest
from brownie import accounts, chain
from walk import seeds, walk
from world import DAY, MIN_STAKE, UNBONDING, now, reverts

NODES, OWNER, WINDOW = (4, 5), 6, 2 * DAY


class StakeMachine:
    def __init__(self, world):
        self.world, self.registry = world, world.registry
        for node in NODES:
            world.stake(node, owner=OWNER)
        world.registry.grantRole(world.registry.ESCROW_ROLE(), accounts[0], {"from": accounts[0]})
        world.token.approve(world.registry, 2**255, {"from": accounts[0]})
        self.stake = dict.fromkeys(NODES, MIN_STAKE)
        self.unbonding = dict.fromkeys(NODES, 0)
        self.ripe = dict.fromkeys(NODES, 0)
        self.locks = {node: [] for node in NODES}
        self.returned = self.burned = 0
        self.supply = world.token.totalSupply()

    def draw_node(self, rng):
        return rng.choice(NODES)

    def draw_amount(self, rng):
        return rng.randint(1, rng.choice([MIN_STAKE, MIN_STAKE // 10]))

    def draw_jump(self, rng):
        return rng.choice([60, WINDOW // 3, WINDOW, UNBONDING // 2, UNBONDING + 60])

    def rule_add_stake(self, node, amount):
        self.registry.addStake(accounts[node], amount, {"from": accounts[0]})
        self.stake[node] += amount

    def rule_begin_unstake(self, node, amount):
        call = lambda: self.registry.beginUnstake(accounts[node], amount, {"from": accounts[OWNER]})  # noqa: E731
        if amount > self.stake[node]:
            with reverts("StakeInsufficient"):
                call()
            return
        self.ripe[node] = call().timestamp + UNBONDING
        self.stake[node] -= amount
        self.unbonding[node] += amount

    def rule_lock(self, node, amount):
        until = now() + WINDOW
        tx = self.registry.lockStake(accounts[node], amount, until, {"from": accounts[0]})
        if tx.return_value:
            assert self.registry.nodeOf(accounts[node])["locked"] <= self.stake[node] + self.unbonding[node]
        self.locks[node].append((tx.return_value, until))

    def rule_slash(self, node, amount):
        if self.stake[node] + self.unbonding[node] == 0:
            return
        reward = min(amount, self.stake[node] + self.unbonding[node]) // 2
        taken = self.registry.slash(
            accounts[node], amount, accounts[7], reward, bytes(32), {"from": accounts[0]}
        ).return_value
        assert taken == min(amount, self.stake[node] + self.unbonding[node])
        from_stake = min(taken, self.stake[node])
        self.stake[node] -= from_stake
        self.unbonding[node] -= taken - from_stake
        self.burned += taken - reward

    def rule_withdraw(self, node):
        call = lambda: self.registry.withdrawStake(accounts[node], {"from": accounts[OWNER]})  # noqa: E731
        if self.unbonding[node] == 0:
            with reverts("NothingUnbonding"):
                call()
            return
        if now() < self.ripe[node] - 5:
            with reverts("StillUnbonding"):
                call()
            return
        all_of_it = self.stake[node] + self.unbonding[node]
        locked = self.registry.nodeOf(accounts[node])["locked"]
        if locked >= all_of_it:
            with reverts("StakeStillLocked"):
                call()
            return
        amount = call().return_value
        assert amount == min(self.unbonding[node], all_of_it - locked)
        self.unbonding[node] -= amount
        self.returned += amount

    def rule_pass_time(self, jump):
        chain.sleep(jump)
        chain.mine()

    def invariant_the_registry_holds_exactly_what_it_owes(self):
        owed = sum(self.stake.values()) + sum(self.unbonding.values())
        assert self.world.token.balanceOf(self.registry) == owed
        assert self.world.token.balanceOf(accounts[OWNER]) == self.returned
        assert self.world.token.totalSupply() == self.supply - self.burned

    def invariant_locks_hold_at_least_as_long_as_asked(self):
        for node in NODES:
            record = self.registry.nodeOf(accounts[node])
            assert (record["stake"], record["unbonding"]) == (self.stake[node], self.unbonding[node])
            assert record["active"] == (self.stake[node] >= MIN_STAKE)
            time = chain[-1].timestamp
            asked = sum(amount for amount, until in self.locks[node] if until > time + 5)
            longest = sum(amount for amount, until in self.locks[node] if until + WINDOW > time - 5)
            assert asked <= record["locked"] <= longest


@pytest.mark.parametrize("seed", seeds(examples_a_walk=13))
def test_the_registry_keeps_its_promises_over_any_history(world, seed):
    walk(StakeMachine(world), Random(seed), steps=50)
