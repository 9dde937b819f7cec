"""Three hundred nodes that place themselves: what is lost is soon served again, and then they stay."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import median

import pytest
from benchmarks.placement.clients import tour
from benchmarks.placement.world import Node, Rules, Shock, World
from benchmarks.swarm_sim import moves_per_node_hour, quality, seconds_to_fill

from corolla_core.protocol.span import Span

RULES = Rules(nodes=300, blocks=40, stay=1e12, load_block=5.0)
HURT = Span(10, 20)
GAP = Shock(0.5, "every node over some blocks", lambda node, _rng: node.span.overlaps(HURT))
HOURS = 2.0


@pytest.fixture(scope="module")
def world() -> World:
    """Nobody comes after the beginning: whatever is mended, those that are there mend."""
    return World(RULES, 1).run(HOURS, (GAP,))


def test_blocks_that_nobody_serves_any_more_are_served_again_within_minutes(world: World) -> None:
    assert 0 < seconds_to_fill(world.history, GAP.hours) < 900
    still = World(replace(RULES, rebalance=False), 1).run(HOURS, (GAP,))
    assert seconds_to_fill(still.history, GAP.hours) == float("inf")


def test_the_swarm_is_balanced_again_and_then_nobody_moves(world: World) -> None:
    before = [m for m in world.history if m.hours < GAP.hours]
    settled = [m for m in world.history if m.hours > GAP.hours + 1.0]
    assert median(quality(settled)) > 0.9 * median(quality(before)) > 0.6
    assert moves_per_node_hour(settled) < 0.05
    assert sum(m.moves for m in world.history) < 0.5 * world.history[-1].nodes


def test_a_region_that_is_lost_opens_no_gap_and_moves_few() -> None:
    def region(node: Node, _rng: Random) -> bool:
        return node.region == 0

    world = World(RULES, 2).run(HOURS, (Shock(0.5, "a region", region),))
    settled = [m for m in world.history if m.hours > 1.0]
    assert world.history[-1].nodes < 0.85 * RULES.nodes
    assert max(m.unserved for m in world.history) == 0
    assert median(quality(settled)) > 0.6
    assert moves_per_node_hour([m for m in world.history if m.hours > 0.5]) < 0.3


def test_under_churn_hardly_anybody_moves() -> None:
    world = World(replace(RULES, stay=6 * 3600.0), 3).run(HOURS)
    assert min(m.unserved for m in world.history) == max(m.unserved for m in world.history) == 0
    assert median(quality(world.history)) > 0.6
    assert moves_per_node_hour(world.history) < 0.1


def test_the_same_seed_is_the_same_history(world: World) -> None:
    assert World(RULES, 1).run(0.25).history == world.history[: len(World(RULES, 1).run(0.25).history)]


def test_a_client_that_learns_comes_near_the_best_route_and_away_from_exaggerators() -> None:
    nodes = World(replace(RULES, liars=0.1), 4).serving()
    tours = [tour(nodes, RULES.blocks, sessions=20, seed=seed) for seed in range(4)]
    first, last = (median(t.ratios[at] for t in tours) for at in (0, -1))
    assert all(ratio >= 1 - 1e-9 for t in tours for ratio in t.ratios)
    assert last < first
    assert last < 1.6
    lied_at_first, lied_at_last = (sum(t.liars[at] for t in tours) for at in (0, -1))
    assert lied_at_last < 0.5 * lied_at_first
