"""Which of the nodes announced a session may use."""

from __future__ import annotations

from time import time

import pytest

from corolla.peers import Peers
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, address
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState

pytestmark = pytest.mark.anyio
ROOT = ModelRoot(bytes(32))
CHEAP, DEAR = (address(bytes([n]) * 20) for n in (1, 2))


def announced(account: Address, *, price: int, room: int) -> Announcement:
    now = int(time() * 1000)
    return Announcement(
        network="test",
        model_root=ROOT,
        span=Span(0, 4),
        account=account,
        peer_id="",
        host="127.0.0.1",
        port=1,
        cert_hash=Hash32(bytes(32)),
        price_per_token_block=price,
        numeric_class=NumericClass.FP32,
        wire_dtypes=("float32",),
        throughput=100_000,
        kv_free_tokens=room,
        state=NodeState.ONLINE,
        issued_at=now,
        expires_at=now + 60_000,
    )


class Listed:
    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return [announced(CHEAP, price=10, room=100), announced(DEAR, price=11, room=400)]


async def usable(*, tokens: int = 1, batch: int = 1, max_price: int | None = None) -> list[Address]:
    peers = Peers(Listed(), ROOT, 4, rtt=lambda _account: None)
    await peers.refresh()
    found = peers.candidates(tokens=tokens, batch=batch, wire_dtype="float32", max_price=max_price)
    return [candidate.account for candidate in found]


async def test_a_node_needs_room_for_every_row_of_a_batch() -> None:
    assert await usable(tokens=100) == [CHEAP, DEAR]
    assert await usable(tokens=100, batch=4) == [DEAR]
    assert await usable(tokens=100, batch=5) == []


async def test_a_node_that_asks_more_than_the_highest_price_is_not_used() -> None:
    assert await usable(max_price=11) == [CHEAP, DEAR]
    assert await usable(max_price=10) == [CHEAP]
    assert await usable(max_price=9) == []
