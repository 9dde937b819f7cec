"""A client goes only to nodes that the registry calls active."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from corolla.staked import CONCURRENCY, MOST_STRANGERS, STANDING_SECONDS, StakedLookup
from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.ids import Address, ModelRoot, address
from corolla_core.swarm.announcement import Announcement

pytestmark = pytest.mark.anyio

HONEST, STRANGER = (address(bytes([n]) * 20) for n in (1, 2))
ROOT = ModelRoot(bytes(32))


@dataclass(frozen=True)
class Named:
    account: Address


@dataclass
class World:
    """A directory that lists both nodes, a registry, and a clock."""

    active: set[Address] = field(default_factory=lambda: {HONEST})
    down: bool = False
    now: float = 0.0
    asked: int = 0

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return cast(list[Announcement], [Named(HONEST), Named(STRANGER)])

    async def is_active(self, account: Address) -> bool:
        self.asked += 1
        if self.down:
            raise ChainUnreachable("down")
        return account in self.active


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

    async def is_active(self, account: Address) -> bool:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.asked.append(account)
        return account == HONEST


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
