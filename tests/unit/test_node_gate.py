"""The door of a private swarm's node: strangers are heard by nobody, members in the order they speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_operators import Clock, FakeOperators
from node_peers import Pipe, join, signer

from corolla_core.protocol.errors import NetworkError, NotAdmitted, from_wire
from corolla_core.swarm.membership import Membership
from corolla_core.swarm.messages import AnyMessage, Ask, Close, Fault
from corolla_node import gate
from corolla_node.gate import Gate

pytestmark = pytest.mark.anyio
MEMBER, STRANGER, NODE = (signer(name).address for name in ("member", "stranger", "node"))


class Heard:
    """A handler that notes what it hears."""

    def __init__(self) -> None:
        self.messages: list[AnyMessage] = []
        self.lost = 0

    def on_message(self, conn: Any, message: AnyMessage, payload: memoryview) -> None:
        self.messages.append(message)

    def on_lost(self, conn: Any, error: NetworkError | None) -> None:
        self.lost += 1


class Door:
    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.operators, self.clock, self.inside = FakeOperators(MEMBER), Clock(), Heard()
        self.membership = Membership(self.operators, clock=self.clock)
        self.gate = Gate(self.inside, self.membership, tasks)

    def dialed(self, who: Any) -> tuple[Pipe, Heard]:
        outside = Heard()
        return join(who, outside, NODE, self.gate)[0], outside


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with asyncio.TaskGroup() as tasks:
        yield Door(tasks)


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


def closes(*numbers: int) -> list[AnyMessage]:
    return [Close(bytes([number]) * 16) for number in numbers]


async def test_a_members_messages_arrive_in_order_from_the_first_on(door: Door) -> None:
    pipe, outside = door.dialed(MEMBER)
    for message in closes(1, 2, 3):
        pipe.send(message)
    await settle()
    for message in closes(4, 5):
        pipe.send(message)
    await settle()
    assert door.inside.messages == closes(1, 2, 3, 4, 5)
    assert door.operators.asked == [[MEMBER]]
    assert outside.messages == []


async def test_a_stranger_is_told_so_closed_and_heard_by_nobody(door: Door) -> None:
    pipe, outside = door.dialed(STRANGER)
    for message in closes(1, 2):
        pipe.send(message)
    await settle()
    assert door.inside.messages == []
    (fault,) = outside.messages
    assert isinstance(fault, Fault)
    assert isinstance(from_wire(fault.error), NotAdmitted)
    assert fault.session == b"\x01" * 16
    assert pipe.closed
    assert (door.inside.lost, door.gate._held, len(door.gate._refused)) == (1, 0, 0)


async def test_who_is_revoked_is_heard_no_more_from_the_next_message_on(door: Door) -> None:
    pipe, outside = door.dialed(MEMBER)
    pipe.send(Ask())
    await settle()
    door.operators.members.clear()
    door.clock.time += 60
    await door.membership.refresh()
    pipe.send(closes(1)[0])
    await settle()
    assert door.inside.messages == [Ask()]
    assert pipe.closed
    assert len(outside.messages) == 1


async def test_nobody_new_is_heard_while_the_chain_is_silent(door: Door) -> None:
    door.operators.down = True
    pipe, outside = door.dialed(MEMBER)
    pipe.send(Ask())
    await settle()
    assert door.inside.messages == []
    assert isinstance(outside.messages[0], Fault)


async def test_what_waits_is_bounded_and_a_gap_in_it_is_the_end(door: Door) -> None:
    """A member's messages are never heard with one of them missing."""
    payload = bytes(gate.MAX_HELD_BYTES // 3)
    pipe, _outside = door.dialed(MEMBER)
    for message in closes(1, 2, 3, 4):
        pipe.send(message, payload)
    await settle()
    assert door.inside.messages == []
    assert pipe.closed
    assert door.gate._held == 0


async def test_a_connection_lost_while_the_chain_is_asked_leaves_nothing(door: Door) -> None:
    pipe, _outside = door.dialed(STRANGER)
    pipe.send(Ask())
    await asyncio.sleep(0)
    pipe.cut()
    await settle()
    assert (door.gate._held, door.gate._waiting, door.gate._refused) == (0, {}, set())
