"""A client goes only to nodes that the registry calls active."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from corolla.staked import CONCURRENCY, MOST_STRANGERS, STANDING_SECONDS, StakedLookup
from corolla.standing import Standing
from corolla_core.chain.registry import NodeRecord
from corolla_core.chain.reputation import NodeScore
from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.ids import Address, ModelRoot, address
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.swarm.announcement import Announcement

pytestmark = pytest.mark.anyio

HONEST, STRANGER = (address(bytes([n]) * 20) for n in (1, 2))
ROOT = ModelRoot(bytes(32))


OWNER = address(bytes([7]) * 20)
STAKE = Nectar(5)


@dataclass(frozen=True)
class Named:
    account: Address


def recorded(account: Address, *, active: bool) -> NodeRecord:
    """What a registry says of a node that OWNER staked for."""
    nothing, never = Nectar(0), UnixTime(0)
    return NodeRecord(OWNER, b"", STAKE, nothing, never, nothing, never, never, active)


@dataclass
class World:
    """A directory that lists both nodes, a registry, and a clock."""

    active: set[Address] = field(default_factory=lambda: {HONEST})
    down: bool = False
    now: float = 0.0
    asked: int = 0

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return cast(list[Announcement], [Named(HONEST), Named(STRANGER)])

    async def node(self, account: Address) -> NodeRecord:
        self.asked += 1
        if self.down:
            raise ChainUnreachable("down")
        return recorded(account, active=account in self.active)


async def accounts(staked: StakedLookup) -> list[Address]:
    return [a.account for a in await staked.lookup(ROOT, 30)]


async def test_a_node_without_stake_is_left_out() -> None:
    world = World()
    assert await accounts(StakedLookup(world, world, clock=lambda: world.now)) == [HONEST]


async def test_standing_is_asked_again_only_when_it_is_old() -> None:
    world = World()
    staked = StakedLookup(world, world, clock=lambda: world.now)
    await accounts(staked)
    world.active = {STRANGER}
    assert await accounts(staked) == [HONEST]
    assert world.asked == 2
    world.now = STANDING_SECONDS
    assert await accounts(staked) == [STRANGER]


async def test_an_outage_of_the_chain_neither_loses_known_nodes_nor_lets_strangers_in() -> None:
    world = World()
    staked = StakedLookup(world, world, clock=lambda: world.now)
    await accounts(staked)
    world.now, world.down, world.active = 2 * STANDING_SECONDS, True, {STRANGER, HONEST}
    assert await accounts(staked) == [HONEST]
    world.down = False
    assert await accounts(staked) == [HONEST, STRANGER]
    assert await accounts(StakedLookup(world, World(down=True), clock=lambda: world.now)) == []


@dataclass
class Flood:
    """A directory full of strangers, and a registry that keeps count of who asks at once."""

    asked: list[Address] = field(default_factory=list)
    strangers: int = 0
    at_once: int = 0
    most_at_once: int = 0

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        flood = [Named(address(n.to_bytes(20, "big"))) for n in range(1000, 1000 + self.strangers)]
        return cast(list[Announcement], [*flood, Named(HONEST)])

    async def node(self, account: Address) -> NodeRecord:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.asked.append(account)
        return recorded(account, active=account == HONEST)


async def test_a_flood_of_strangers_neither_starves_a_known_node_nor_floods_the_registry() -> None:
    world, now = Flood(), [0.0]
    staked = StakedLookup(world, world, clock=lambda: now[0])
    assert await accounts(staked) == [HONEST]
    now[0], world.strangers = STANDING_SECONDS, 1000
    world.asked.clear()
    assert await accounts(staked) == [HONEST]
    assert HONEST in world.asked[:CONCURRENCY]
    assert len(world.asked) == 1 + MOST_STRANGERS
    assert world.most_at_once <= CONCURRENCY


@dataclass
class Oracle:
    """Scores of some nodes, and what was asked for together."""

    known: dict[Address, NodeScore]
    asked: list[Sequence[Address]] = field(default_factory=list)
    down: bool = False

    async def scores(self, nodes: Sequence[Address]) -> Mapping[Address, NodeScore | None]:
        self.asked.append(list(nodes))
        if self.down:
            raise ChainUnreachable("down")
        return {node: self.known.get(node) for node in nodes}


async def test_scores_of_active_nodes_are_asked_in_one_call_and_kept_as_long_as_their_stake() -> None:
    world, oracle = World(active={HONEST, STRANGER}), Oracle({HONEST: NodeScore(65_535, 3)})
    staked = StakedLookup(world, world, oracle, clock=lambda: world.now)
    assert staked.standing(HONEST) == Standing(None, None)
    await accounts(staked)
    await accounts(staked)
    assert oracle.asked == [[HONEST, STRANGER]]
    assert staked.standing(HONEST) == Standing(OWNER, 1.0, STAKE)
    assert staked.standing(STRANGER) == Standing(OWNER, None, STAKE)
    world.now, oracle.known = STANDING_SECONDS, {HONEST: NodeScore(0, 4)}
    await accounts(staked)
    assert staked.standing(HONEST) == Standing(OWNER, 0.0, STAKE)


async def test_nobody_asks_for_the_scores_of_nodes_without_stake() -> None:
    world, oracle = World(), Oracle({})
    await accounts(StakedLookup(world, world, oracle, clock=lambda: world.now))
    assert oracle.asked == [[HONEST]]


async def test_an_oracle_that_does_not_answer_leaves_the_scores_known_before() -> None:
    world, oracle = World(), Oracle({HONEST: NodeScore(65_535, 3)})
    staked = StakedLookup(world, world, oracle, clock=lambda: world.now)
    await accounts(staked)
    world.now, oracle.down = STANDING_SECONDS, True
    assert await accounts(staked) == [HONEST]
    assert staked.standing(HONEST).score == 1.0


async def test_without_an_oracle_every_node_is_a_newcomer() -> None:
    world = World()
    staked = StakedLookup(world, world, clock=lambda: world.now)
    await accounts(staked)
    assert staked.standing(HONEST) == Standing(OWNER, None, STAKE)
