"""A client goes only to nodes that the registry calls active."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from corolla.staked import STANDING_SECONDS, StakedLookup
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
