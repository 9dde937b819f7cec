"""A log line about a session says which one, with whom, and over which blocks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from client_world import client_world, make_checkpoint
from fake_blocks import FakeBlocks
from node_peers import FakeClient, World, inputs, running_node
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import ServingError
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio


class Failing(FakeBlocks):
    def forward_many(self, steps: Any) -> list[Any]:
        return [RuntimeError("out of luck") for _ in steps]


async def test_a_node_says_whose_session_broke() -> None:
    world = World()
    with capture_logs() as logs:
        async with running_node(world, "node", Span(0, 2), blocks=Failing(Span(0, 2))) as node:
            client = FakeClient(world, [node])
            await client.open()
            client.step(1, 0, inputs(1))
            error, _ = await client.expect_fault()
    assert isinstance(error, ServingError)
    (line,) = [line for line in logs if line["event"] == "a session broke"]
    assert (line["session"], line["peer"], line["span"]) == (client.session, client.signer.address, str(Span(0, 2)))


async def test_what_goes_wrong_while_a_session_is_opened_is_told_with_it() -> None:
    world = World()
    world.chain.down = RuntimeError("a bug")  # type: ignore[assignment]
    with capture_logs(processors=[merge_contextvars]) as logs:
        async with running_node(world, "node", Span(0, 2)) as node:
            client = FakeClient(world, [node])
            client.pipes[0].send(client.open_message(0))
            await client.expect_fault()
    (line,) = [line for line in logs if line["event"] == "a session could not be opened"]
    assert (line["session"], line["peer"], line["span"]) == (client.session, client.signer.address, "0:2")


async def test_a_client_says_whom_a_session_lost(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "tiny")
    nodes = {"a": Span(0, 3), "b": Span(3, 6), "c": Span(3, 6)}
    with capture_logs() as logs:
        async with client_world(checkpoint, tmp_path, nodes) as world:
            stream = world.engine.stream("Once", SamplingParams(max_tokens=4))
            await anext(stream)
            world.kill(next(name for name in "bc" if world.nodes[name].account == stream.route[-1].account))
            lost = stream.route[-1].account
            await asyncio.sleep(0)
            async for _ in stream:
                pass
    (line,) = [line for line in logs if line["event"] == "lost a node"]
    assert (line["peer"], line["span"]) == (lost, str(Span(3, 6)))
    assert len(line["session"]) == 16
