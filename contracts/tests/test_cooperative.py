"""Cooperatives: who may do what, and that members get back by shares all that comes in, over any history."""

from __future__ import annotations

from random import Random

import pytest
from brownie import Contract, accounts, chain
from walk import seeds, walk
from world import DAY, MIN_STAKE, ONE_NECTAR, PARAMETERS, UNBONDING, World, fee_of, reverts

NODE, STRANGER = 4, 8
SHARES = {5: 1, 6: 2, 7: 4}
PER_SHARE = 20 * ONE_NECTAR
STAKE = sum(SHARES.values()) * PER_SHARE
NOTICE = 3 * DAY


def by(index):
    return {"from": accounts[index]}


def create(world, project, shares, *, node=None, per_share=PER_SHARE, notice=NOTICE):
    """A cooperative of accounts (index → shares) or addresses, made by a stranger through a factory."""
    factory = accounts[0].deploy(project.CooperativeFactory, world.token, world.registry, world.escrow)
    names = [accounts[m] if isinstance(m, int) else m for m in shares]
    terms = (node or accounts[NODE], names, list(shares.values()), per_share, notice)
    made = factory.create(terms, by(STRANGER)).events["CooperativeCreated"]["cooperative"]
    assert factory.isCooperative(made)
    assert not factory.isCooperative(accounts[NODE])
    return project.Cooperative.at(made)


@pytest.fixture
def pool(world, project):
    """A cooperative that members have tokens to join, and have approved."""
    made = create(world, project, SHARES)
    for member, shares in SHARES.items():
        world.token.transfer(accounts[member], shares * PER_SHARE, by(0))
        world.token.approve(made, shares * PER_SHARE, by(member))
    return made


def launch(world, pool):
    for member in SHARES:
        pool.join(by(member))
    world.registry.acceptOwner(pool, by(NODE))
    return pool.launch(b"peer", by(NODE))


def paid_out(tx):
    return tx.events["Withdrawn"]["amount"]


def earn(world, amount):
    """The node is paid `amount` before fees; returns what it is credited."""
    world.redeem(world.item(world.open(1, {NODE: amount}), NODE, amount))
    return amount - fee_of(amount)


def test_members_stakes_are_pooled_and_the_node_is_the_pools(world, pool):
    launch(world, pool)
    record = world.registry.nodeOf(accounts[NODE])
    assert (record["owner"], record["stake"], record["active"]) == (pool, STAKE, True)
    assert (pool.deposited(), world.token.balanceOf(pool)) == (0, 0)
    assert world.registry.payoutOf(accounts[NODE]) == pool
    assert list(pool.members()) == [accounts[m] for m in SHARES]


def test_what_the_node_earns_goes_to_the_pool_alone_and_by_shares(world, pool):
    launch(world, pool)
    credit = earn(world, 7 * ONE_NECTAR)
    with reverts("PayoutIsBound"):
        world.escrow.withdrawPayee(accounts[NODE], by(NODE))
    assert pool.collect(by(STRANGER)).events["PayeeWithdrawn"]["amount"] == credit
    for member, shares in SHARES.items():
        assert paid_out(pool.withdraw(by(member))) == credit * shares // 7
        with reverts("NothingDue"):
            pool.withdraw(by(member))
    assert "PayeeWithdrawn" not in pool.collect(by(STRANGER)).events


def test_the_node_may_pay_out_too_but_only_to_the_pool(world, pool):
    launch(world, pool)
    credit = earn(world, ONE_NECTAR)
    world.escrow.withdrawPayee(pool, by(NODE))
    assert world.token.balanceOf(pool) == credit


def test_what_was_earned_before_launch_is_the_pools_as_well(world, pool):
    """The key cannot have worked on the side and keep it: it agreed to be the pool's."""
    credit = earn(world, ONE_NECTAR)
    with reverts("PayoutNotBound"):
        world.escrow.withdrawPayeeFor(accounts[NODE], by(STRANGER))
    launch(world, pool)
    assert pool.collect(by(STRANGER)).events["PayeeWithdrawn"]["amount"] == credit


def test_rounding_holds_nothing_back_for_good(world, pool):
    launch(world, pool)
    for _ in range(7):
        world.token.transfer(pool, 1, by(0))
    assert [pool.memberOf(accounts[m])["due"] for m in SHARES] == [1, 2, 4]
    for member in SHARES:
        pool.withdraw(by(member))
    assert world.token.balanceOf(pool) == 0


def test_before_launch_each_may_leave_and_come_back(world, pool):
    pool.join(by(6))
    with reverts("AlreadyJoined"):
        pool.join(by(6))
    pool.leave(by(6))
    assert world.token.balanceOf(accounts[6]) == 2 * PER_SHARE
    with reverts("NotJoined"):
        pool.leave(by(6))
    world.token.approve(pool, 2 * PER_SHARE, by(6))
    pool.join(by(6))
    pool.join(by(5))
    world.registry.acceptOwner(pool, by(NODE))
    with reverts("NotAllJoined", 3 * PER_SHARE, STAKE):
        pool.launch(b"peer", by(NODE))


def test_a_present_before_launch_does_not_stand_in_for_a_deposit(world, pool):
    world.token.transfer(pool, STAKE, by(0))
    world.registry.acceptOwner(pool, by(NODE))
    with reverts("NotAllJoined", 0, STAKE):
        pool.launch(b"peer", by(NODE))
    with reverts("NothingDue"):
        pool.withdraw(by(5))


def test_only_who_may_does(world, pool):
    for call in (pool.join, pool.leave, pool.withdraw, pool.giveNotice):
        with reverts("NotMember"):
            call(by(STRANGER))
    with reverts("NotNode"):
        pool.launch(b"peer", by(5))
    for call in (pool.collect, pool.reclaimStake, lambda sender: pool.giveNotice(by(5))):
        with reverts("NotLaunched"):
            call(by(STRANGER))
    for member in SHARES:
        pool.join(by(member))
    with reverts("OwnerNotAccepted"):
        pool.launch(b"peer", by(NODE))
    world.registry.acceptOwner(pool, by(NODE))
    pool.launch(b"peer", by(NODE))
    for call in (lambda: pool.launch(b"peer", by(NODE)), lambda: pool.join(by(5)), lambda: pool.leave(by(5))):
        with reverts("AlreadyLaunched"):
            call()


def test_a_node_is_registered_by_nobody_it_did_not_accept(world):
    world.token.transfer(accounts[STRANGER], MIN_STAKE, by(0))
    world.token.approve(world.registry, MIN_STAKE, by(STRANGER))
    with reverts("OwnerNotAccepted"):
        world.registry.registerFor(accounts[NODE], b"peer", MIN_STAKE, by(STRANGER))
    world.registry.acceptOwner(accounts[STRANGER], by(NODE))
    world.registry.acceptOwner("0x" + "0" * 40, by(NODE))
    with reverts("OwnerNotAccepted"):
        world.registry.registerFor(accounts[NODE], b"peer", MIN_STAKE, by(STRANGER))


def test_accepting_an_owner_binds_no_node_that_registered_itself(world):
    world.stake(NODE)
    world.registry.acceptOwner(accounts[STRANGER], by(NODE))
    with reverts("AlreadyRegistered"):
        world.registry.registerFor(accounts[NODE], b"peer", MIN_STAKE, by(STRANGER))
    earn(world, ONE_NECTAR)
    world.escrow.withdrawPayee(accounts[9], by(NODE))


@pytest.mark.parametrize(
    ("shares", "changes", "error"),
    [
        ({}, {}, "OutOfBounds"),
        ({5: 0}, {}, "MemberInvalid"),
        ({"0x" + "0" * 40: 1}, {}, "MemberInvalid"),
        ({5: 1}, {"per_share": MIN_STAKE - 1}, "OutOfBounds"),
        ({5: 2**96 - 1}, {"per_share": 2**96 - 1}, "OutOfBounds"),
        ({5: 1}, {"per_share": MIN_STAKE, "notice": 0}, "OutOfBounds"),
        ({5: 1}, {"per_share": MIN_STAKE, "notice": 31 * DAY}, "OutOfBounds"),
        ({5: 1}, {"per_share": MIN_STAKE, "node": "0x" + "0" * 40}, "NotNode"),
    ],
)
def test_malformed_terms_are_refused(world, project, shares, changes, error):
    with reverts(error):
        create(world, project, shares, **changes)


def test_members_are_named_once_and_shares_for_each(world, project):
    factory = accounts[0].deploy(project.CooperativeFactory, world.token, world.registry, world.escrow)
    for members, shares, error in (([5, 5], [1, 1], "MemberInvalid"), ([5, 6], [1], "LengthsDiffer")):
        with reverts(error):
            factory.create((accounts[NODE], [accounts[m] for m in members], shares, MIN_STAKE, NOTICE), by(0))


def test_any_member_ends_the_pool_after_notice_and_a_slash_is_borne_by_shares(world, pool):
    launch(world, pool)
    with reverts("NoticeNotOver"):
        pool.dissolve(by(6))
    pool.giveNotice(by(5))
    with reverts("NoticeAlreadyGiven"):
        pool.giveNotice(by(6))
    with reverts("NoticeNotOver"):
        pool.dissolve(by(5))
    chain.sleep(NOTICE + 1)
    pool.dissolve(by(STRANGER))
    assert not world.registry.isActive(accounts[NODE])
    world.registry.slash(accounts[NODE], STAKE // 2, accounts[9], 0, bytes(32), by(0))
    chain.sleep(UNBONDING + 1)
    assert pool.reclaimStake(by(STRANGER)).events["StakeWithdrawn"]["amount"] == STAKE // 2
    for member, shares in SHARES.items():
        assert paid_out(pool.withdraw(by(member))) == shares * PER_SHARE // 2


def test_nobody_can_have_the_unbonding_begin_again(world, pool):
    launch(world, pool)
    pool.giveNotice(by(5))
    chain.sleep(NOTICE + 1)
    pool.dissolve(by(5))
    at = world.registry.nodeOf(accounts[NODE])["unbondingAt"]
    world.token.approve(world.registry, 10, by(0))
    world.registry.addStake(accounts[NODE], 10, by(0))
    with reverts("StakeStillUnbonding"):
        pool.dissolve(by(STRANGER))
    assert world.registry.nodeOf(accounts[NODE])["unbondingAt"] == at
    chain.sleep(UNBONDING + 1)
    pool.reclaimStake(by(5))
    pool.dissolve(by(5))
    assert world.registry.nodeOf(accounts[NODE])["unbonding"] == 10  # what was added comes out as well


# ---- reentrancy ----


@pytest.fixture
def hostile(world, project):
    """The same contracts over a token that calls back in every transfer, and a pool of its agent and account 6."""
    token = accounts[0].deploy(project.HostileToken)
    registry = accounts[0].deploy(project.NodeRegistry, token, accounts[0], MIN_STAKE, DAY)
    escrow = accounts[0].deploy(project.Escrow, token, registry, world.timelock, PARAMETERS)
    over = World(token, registry, world.models, escrow, world.timelock, world.harness)
    agent = Contract.from_abi("Agent", token.agent(), project.Agent.abi)
    pool = create(over, project, {agent.address: 1, 6: 1}, per_share=MIN_STAKE)
    token.transfer(agent, MIN_STAKE, by(0))
    agent.act(token, token.approve.encode_input(pool, MIN_STAKE), by(STRANGER))
    agent.act(pool, pool.join.encode_input(), by(STRANGER))
    token.transfer(accounts[6], MIN_STAKE, by(0))
    token.approve(pool, MIN_STAKE, by(6))
    return over, pool, agent


@pytest.mark.parametrize("name", ["withdraw", "leave", "join", "collect", "reclaimStake", "dissolve"])
def test_a_member_who_is_paid_cannot_reenter(hostile, name):
    world, pool, agent = hostile
    pool.join(by(6))
    world.registry.acceptOwner(pool, by(NODE))
    pool.launch(b"peer", by(NODE))
    world.token.transfer(pool, 100, by(0))
    world.token.arm(pool, getattr(pool, name).encode_input(), by(0))
    agent.act(pool, pool.withdraw.encode_input(), by(STRANGER))
    assert world.token.attempted()
    assert not world.token.succeeded()
    assert world.token.outcome()[:4] == bytes.fromhex("3ee5aeb5")  # ReentrancyGuardReentrantCall()
    assert world.token.balanceOf(agent) == 50
    assert pool.memberOf(accounts[6])["due"] == 50


def test_a_member_who_leaves_cannot_leave_twice_at_once(hostile):
    world, pool, agent = hostile
    pool.join(by(6))
    world.token.arm(pool, pool.leave.encode_input(), by(0))
    agent.act(pool, pool.leave.encode_input(), by(STRANGER))
    assert world.token.attempted()
    assert not world.token.succeeded()
    assert world.token.balanceOf(agent) == MIN_STAKE
    assert pool.deposited() == MIN_STAKE


# ---- any history ----


class PoolMachine:
    """A launched pool; the model counts in whole numbers what came in, and pays floor(in * shares / all)."""

    def __init__(self, world, pool):
        self.world, self.pool = world, pool
        launch(world, pool)
        self.received, self.paid = 0, dict.fromkeys(SHARES, 0)
        self.stake = STAKE
        world.token.approve(world.registry, 2**255, by(0))

    def draw_member(self, rng):
        return rng.choice(list(SHARES))

    def draw_amount(self, rng):
        return rng.choice([1, 2, 3, rng.randint(1, 10**6), rng.randint(1, ONE_NECTAR)])

    def rule_earn_and_collect(self, amount):
        self.received += earn(self.world, amount)
        self.pool.collect(by(STRANGER))

    def rule_present(self, amount):
        self.world.token.transfer(self.pool, amount, by(0))
        self.received += amount

    def rule_withdraw(self, member):
        due = self.due(member)
        if due == 0:
            with reverts("NothingDue"):
                self.pool.withdraw(by(member))
            return
        assert paid_out(self.pool.withdraw(by(member))) == due
        self.paid[member] += due

    def rule_slash(self, amount):
        if self.stake:
            tx = self.world.registry.slash(accounts[NODE], amount, accounts[9], 0, bytes(32), by(0))
            self.stake -= tx.events["NodeSlashed"]["amount"]

    def due(self, member):
        return self.received * SHARES[member] // 7 - self.paid[member]

    def invariant_nothing_is_made_or_lost(self):
        balance = self.world.token.balanceOf(self.pool)
        assert balance == self.received - sum(self.paid.values())
        dues = {member: self.pool.memberOf(accounts[member])["due"] for member in SHARES}
        assert dues == {member: self.due(member) for member in SHARES}
        assert 0 <= balance - sum(dues.values()) < len(SHARES)  # less than a base unit for each is held back

    def end(self):
        """Everyone gets out all that is theirs, the stake as well."""
        self.pool.giveNotice(by(5))
        chain.sleep(NOTICE + 1)
        self.pool.dissolve(by(5))
        chain.sleep(UNBONDING + 1)
        self.pool.reclaimStake(by(5))
        self.received += self.stake
        for member in SHARES:
            self.rule_withdraw(member)
        assert sum(self.paid.values()) <= self.received
        assert self.received - sum(self.paid.values()) < len(SHARES)


@pytest.mark.parametrize("seed", seeds(examples_a_walk=20))
def test_a_pool_pays_out_what_came_in_over_any_history(world, pool, seed):
    machine = PoolMachine(world, pool)
    walk(machine, Random(seed), steps=15)
    machine.end()
