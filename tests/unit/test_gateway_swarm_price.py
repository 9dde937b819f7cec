"""The most a text of the swarm's can cost is what the dearest nodes that may be used would ask for all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time
from typing import Any

import pytest

from corolla.gateway.backend import Ask
from corolla.gateway.swarm_price import LOOKED_UP, SwarmPrice, dearest
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import NoRoute
from corolla_core.protocol.ids import Hash32, ModelRoot, address
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState


def node(number: int, span: Span, price: int, state: NodeState = NodeState.ONLINE) -> Announcement:
    now = int(time() * 1000)
    return Announcement(
        network="test",
        model_root=ModelRoot(bytes(32)),
        span=span,
        account=address(bytes([number]) * 20),
        peer_id="",
        host="127.0.0.1",
        port=1,
        cert_hash=Hash32(bytes(32)),
        price_per_token_block=price,
        numeric_class=NumericClass.FP32,
        wire_dtypes=NumericClass.FP32.wires,
        throughput=1000,
        kv_free_tokens=1000,
        state=state,
        issued_at=now,
        expires_at=now + 60_000,
    )


NODES = [node(1, Span(0, 3), 5), node(2, Span(2, 4), 7), node(3, Span(0, 4), 100)]


def test_each_block_counts_at_the_dearest_price_that_may_be_paid() -> None:
    assert dearest(NODES[:2], 4, at_most=None) == 5 + 5 + 7 + 7
    assert dearest(NODES, 4, at_most=None) == 400
    assert dearest(NODES, 4, at_most=99) == 24


def test_blocks_that_nobody_serves_at_such_a_price_have_none() -> None:
    with pytest.raises(NoRoute) as refused:
        dearest(NODES[:2], 4, at_most=6)
    assert refused.value.missing == [3]
    joining = node(4, Span(3, 4), 1, next(state for state in NodeState if state is not NodeState.ONLINE))
    with pytest.raises(NoRoute):
        dearest([NODES[0], joining], 4, at_most=None)


class Client:
    """A client that counts its lookups; a prompt has a token for each character."""

    num_blocks = 4
    max_price = None
    max_waste = 0.5

    def __init__(self) -> None:
        self.looked = 0

    @property
    def model(self) -> Any:
        return self

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        return work(*args)

    def prompt_ids(self, prompt: str) -> list[int]:
        return list(prompt.encode())

    async def nodes(self) -> list[Announcement]:
        self.looked += 1
        return NODES[:2]


def test_prompt_tokens_and_wrong_guesses_all_count_and_prices_are_looked_up_now_and_then() -> None:
    client, now = Client(), 100.0
    price = SwarmPrice(client, clock=lambda: now)
    ask = Ask("tiny", "prompt", SamplingParams(max_tokens=10))

    async def main() -> None:
        nonlocal now
        assert await price.most(ask) == 24 * (6 + 10 + 5 + 1)
        await price.most(ask)
        assert client.looked == 1
        now += LOOKED_UP
        await price.most(ask)
        assert client.looked == 2

    asyncio.run(main())
