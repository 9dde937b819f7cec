"""Pure properties, by hypothesis: sum proofs against Python, lying trees, stake locks, batches.

`COROLLA_EXAMPLES=1000 bash scripts/test.sh` looks harder.
"""

from __future__ import annotations

from random import Random

import pytest
from brownie import accounts
from eth_utils import keccak
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from walk import EXAMPLES, seeds
from world import LOCK_BPS, fee_of

from corolla_core.protocol.errors import InvalidProof
from corolla_core.protocol.ids import Hash32, address
from corolla_core.protocol.sumtree import Leaf, SumNode, SumProof, SumTree, hash_leaf, verify

MODERATE = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
UINT128 = 2**128 - 1

amounts = st.one_of(st.integers(0, 10), st.integers(0, UINT128 // 64), st.sampled_from([UINT128, UINT128 - 1]))


def payee(number):
    return address(keccak(text=f"payee {number}")[12:])


def accepts(root, leaf, proof):
    """What corolla_core says."""
    try:
        verify(root, leaf, proof)
    except InvalidProof:
        return False
    return True


def contract_accepts(harness, root, leaf, proof):
    siblings = [[node.hash, node.sum] for node in proof.siblings]
    return harness.verify([root.hash, root.sum], leaf.payee, leaf.cap, proof.index, siblings)


@st.composite
def perturbed_proofs(draw):
    """An honest proof with none, one or several things wrong with it."""
    caps = draw(st.lists(st.integers(0, UINT128 // 64), min_size=1, max_size=9))
    tree = SumTree([Leaf(payee(i), cap) for i, cap in enumerate(caps)])
    index = draw(st.integers(0, len(caps) - 1))
    root, leaf, proof = tree.root, tree.leaves[index], tree.proof(index)
    siblings = list(proof.siblings)
    for fault in draw(st.lists(st.sampled_from(["cap", "total", "index", "sum", "swap", "cut", "grow"]), max_size=2)):
        if fault == "cap":
            leaf = Leaf(leaf.payee, draw(amounts))
        elif fault == "total":
            root = SumNode(root.hash, draw(amounts))
        elif fault == "index":
            alias = index + (draw(st.integers(1, 3)) << len(siblings))
            index = draw(st.one_of(st.just(alias), st.integers(0, 2**32 - 1)))
        elif fault == "sum" and siblings:
            at = draw(st.integers(0, len(siblings) - 1))
            siblings[at] = SumNode(siblings[at].hash, draw(amounts))
        elif fault == "swap":
            siblings.reverse()
        elif fault == "cut":
            siblings = siblings[:-1]
        elif fault == "grow":
            siblings = siblings + [SumNode(Hash32(bytes(32)), draw(amounts))] * draw(st.integers(1, 30))
    return root, leaf, SumProof(index, tuple(siblings))


def test_contract_and_python_accept_the_same_proofs(harness):
    @MODERATE
    @given(perturbed_proofs())
    def check(case):
        assert contract_accepts(harness, *case) == accepts(*case)

    check()


@st.composite
def lying_trees(draw):
    """A tree whose builder writes any sum it likes beside any child."""
    depth = draw(st.integers(0, 3))
    leaves = [Leaf(payee(i), draw(amounts)) for i in range(2**depth)]
    levels = [[hash_leaf(leaf) for leaf in leaves]]
    while len(levels[-1]) > 1:
        told = [SumNode(node.hash, draw(st.one_of(st.just(node.sum), amounts))) for node in levels[-1]]
        parents = []
        for left, right in zip(told[::2], told[1::2], strict=True):
            packed = b"\x01" + left.hash + left.sum.to_bytes(16, "big") + right.hash + right.sum.to_bytes(16, "big")
            parents.append(SumNode(Hash32(keccak(packed)), (left.sum + right.sum) % 2**128))
        levels[-1] = told
        levels.append(parents)
    return leaves, levels


def test_the_leaves_any_tree_proves_add_up_to_at_most_its_total(harness):
    @MODERATE
    @given(lying_trees())
    def check(case):
        leaves, levels = case
        proved = 0
        for index, leaf in enumerate(leaves):
            siblings = tuple(level[(index >> depth) ^ 1] for depth, level in enumerate(levels[:-1]))
            proof = SumProof(index, siblings)
            accepted = contract_accepts(harness, levels[-1][0], leaf, proof)
            assert accepted == accepts(levels[-1][0], leaf, proof)
            proved += leaf.cap if accepted else 0
        assert proved <= levels[-1][0].sum

    check()


any_length = st.integers(1, 1_000)


@st.composite
def lock_histories(draw, length=any_length):
    """Locks as (time, amount, until), in the order of time."""
    time, steps = 10_000, []
    for _ in range(draw(st.integers(1, 10))):
        time += draw(st.one_of(st.integers(0, 200), st.integers(0, 2_000)))
        steps.append((time, draw(st.integers(1, 1_000)), time + draw(length)))
    return steps


def probe_times(steps, i):
    """From step `i` to the next: where something may end, and one second to either side."""
    last = steps[i + 1][0] if i + 1 < len(steps) else steps[-1][0] + 3_000
    edges = {until + d for _, _, until in steps[: i + 1] for d in (-1, 0, 1)}
    return sorted(t for t in edges | {steps[i][0], last} if steps[i][0] <= t <= last)


def run(locks, steps):
    probes = [probe_times(steps, i) for i in range(len(steps))]
    locked = locks.run([list(step) for step in steps], probes)
    for i, times in enumerate(probes):
        for time, amount in zip(times, locked[i], strict=True):
            yield steps[: i + 1], time, int(amount)


def test_a_lock_never_ends_early(deployed, project):
    locks = accounts[0].deploy(project.LocksHarness)

    @MODERATE
    @given(lock_histories())
    def check(steps):
        for added, time, locked in run(locks, steps):
            assert locked >= sum(amount for _, amount, until in added if until > time)

    check()


def test_locks_of_one_length_last_at_least_that_and_at_most_twice(deployed, project):
    locks = accounts[0].deploy(project.LocksHarness)

    @MODERATE
    @given(lock_histories(length=st.just(500)))
    def check(steps):
        for added, time, locked in run(locks, steps):
            assert locked >= sum(amount for at, amount, _ in added if at + 500 > time)
            assert locked <= sum(amount for at, amount, _ in added if at + 2 * 500 > time)

    check()


@pytest.mark.parametrize("order", ["one batch", "one by one", "shuffled", "best alone"])
@pytest.mark.parametrize("seed", seeds(examples_a_walk=13))
def test_redeeming_comes_to_the_same_in_a_batch_or_one_by_one_in_any_order(world, seed, order):
    """All of them come to what the largest voucher of each (tranche, payee) says."""
    rng = Random(seed)
    for node in (4, 5):
        world.stake(node)
    tranches = [world.open(payer, {4: 10**6, 5: 10**6, 6: 10**6}) for payer in (1, 2)]
    vouchers = [(rng.randrange(2), rng.choice([4, 5, 6]), rng.randrange(10**6 + 1)) for _ in range(rng.randint(3, 9))]
    best = {}
    for t, who, cumulative in vouchers:
        best[t, who] = max(best.get((t, who), 0), cumulative)
    if order == "shuffled":
        rng.shuffle(vouchers)
    if order == "best alone":
        vouchers = [(t, who, cumulative) for (t, who), cumulative in best.items()]
    items = [world.item(tranches[t], who, cumulative, by=t + 1) for t, who, cumulative in vouchers]
    for batch in [items] if order in ("one batch", "best alone") else [[item] for item in items]:
        world.redeem(*batch)

    for who in (4, 5, 6):
        claims = [best.get((t, who), 0) for t in (0, 1)]
        assert [world.escrow.claimed(tranche.id, accounts[who]) for tranche in tranches] == claims
        assert world.escrow.payeeBalance(accounts[who]) == sum(claim - fee_of(claim) for claim in claims)
        locked = sum(claim * LOCK_BPS // 10_000 for claim in claims)
        assert world.registry.nodeOf(accounts[who])["locked"] == (locked if who != 6 else 0)
    assert world.escrow.burnPending() == sum(fee_of(cumulative) for cumulative in best.values())
