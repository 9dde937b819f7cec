"""One trace over a request: the client, every hop, and what each node waited and computed."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_world import ClientWorld, client_world, make_checkpoint
from node_peers import FakeClient, World, inputs, running_node
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from structlog.testing import capture_logs

from corolla_core.config.tracing import Tracing, tracing_from_environment
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import MalformedMessage
from corolla_core.protocol.span import Span
from corolla_core.swarm.frame import decode_message, encode
from corolla_core.swarm.messages import Close, Closed, Open
from corolla_node.trace import MAX_STEPS

pytestmark = pytest.mark.anyio
FIRST, SECOND = Span(0, 3), Span(3, 6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


class Collected:
    """A tracing whose spans are kept in memory."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._spans = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(sampler), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracing = Tracing(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def __len__(self) -> int:
        return len(self._spans.get_finished_spans())


def trace_with(world: ClientWorld, client: Collected, nodes: dict[str, Collected]) -> None:
    world.engine._tracing = client.tracing
    for name, collected in nodes.items():
        world.nodes[name].desk.tracing = collected.tracing


def inside(child: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether one span is the other's child, in the same trace."""
    assert child.parent is not None
    assert parent.context is not None
    return child.parent.span_id == parent.context.span_id and child.parent.trace_id == parent.context.trace_id


async def test_a_request_is_one_trace_from_the_client_to_every_computation(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    client, nodes = Collected(), {"a": Collected(), "b": Collected()}
    async with client_world(checkpoint, tmp_path, {"a": FIRST, "b": SECOND}) as world:
        trace_with(world, client, nodes)
        made = await world.engine.stream("Once", SamplingParams(max_tokens=5)).read()
    root = client.one("corolla.session")
    assert root.parent is None
    assert inside(client.one("corolla.open"), root)
    generate = client.one("corolla.generate")
    assert inside(generate, root)
    assert dict(generate.attributes or {}) == {"prompt": 4, "cached": 0, "tokens": 5}
    hops = {str((hop.attributes or {})["account"]): hop for hop in client.named("corolla.hop")}
    assert list(hops) == [hop.account for hop in made.route]
    for name, collected in nodes.items():
        hop = hops[world.nodes[name].account]
        assert inside(hop, root)
        session = collected.one("corolla.node.session")
        assert inside(session, hop)
        assert (session.attributes or {})["reason"] == "closed"
        steps = collected.named("corolla.node.step")
        assert len(steps) == 5  # the prompt, and each token but the last
        for step in steps:
            assert inside(step, session)
            parts = [span for kind in ("queue", "compute") for span in collected.named(f"corolla.node.{kind}")]
            own = [part for part in parts if inside(part, step)]
            assert sorted(part.name for part in own) == ["corolla.node.compute", "corolla.node.queue"]
            for part in own:
                assert step.start_time <= part.start_time <= part.end_time <= step.end_time  # type: ignore[operator]


async def test_a_lost_node_and_its_replacement_are_hops_of_the_same_trace(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    client, nodes = Collected(), {"a": Collected(), "b": Collected(), "c": Collected()}
    async with client_world(checkpoint, tmp_path, {"a": FIRST, "b": SECOND, "c": SECOND}) as world:
        trace_with(world, client, nodes)
        stream = world.engine.stream("Once", SamplingParams(max_tokens=8))
        await anext(stream)
        lost = next(name for name in "bc" if world.nodes[name].account == stream.route[-1].account)
        world.kill(lost)
        async for _ in stream:
            pass
    failed = [hop for hop in client.named("corolla.hop") if not hop.status.is_ok and hop.status.is_unset is False]
    assert [(hop.attributes or {})["account"] for hop in failed] == [world.nodes[lost].account]
    (other,) = {"b", "c"} - {lost}
    root = client.one("corolla.session")
    assert nodes[other].one("corolla.node.session").context.trace_id == root.context.trace_id  # type: ignore[union-attr]


async def test_an_unsampled_session_says_nothing_on_the_wire_and_records_nothing(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    client, nodes = Collected(ALWAYS_OFF), {"a": Collected(), "b": Collected()}
    async with client_world(checkpoint, tmp_path, {"a": FIRST, "b": SECOND}) as world:
        trace_with(world, client, nodes)
        await world.engine.stream("Once", SamplingParams(max_tokens=2)).read()
    assert len(client) == len(nodes["a"]) == len(nodes["b"]) == 0


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "00",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",  # no trace has the id zero
        "00-" + "g" * 32 + "-" + "1" * 16 + "-01",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-00",  # not sampled
        "\x00" * 55,
        "é" * 55,
    ],
)
async def test_a_node_ignores_a_traceparent_that_is_none(hostile: str) -> None:
    world, collected = World(), Collected()
    async with running_node(world, "node", Span(0, 2)) as node:
        node.desk.tracing = collected.tracing
        client = FakeClient(world, [node])
        await client.open(traceparent=hostile)
        client.step(1, 0, inputs(3))
        await client.result()
    assert len(collected) == 0


async def test_a_traceparent_is_bounded_and_may_be_left_out() -> None:
    async with running_node(world := World(), "node", Span(0, 2)) as node:
        message = FakeClient(world, [node], dialed=False).open_message(0)
    whole = encode(message)[0][8:]
    assert decode_message(memoryview(whole)) == message
    shorter = bytes([whole[0]]) + bytes(whole[1:-1])  # what a peer sends that knows no such field
    assert shorter[:1] == b"\xdc"
    count = int.from_bytes(shorter[1:3], "big")
    shorter = shorter[:1] + (count - 1).to_bytes(2, "big") + shorter[3:]
    assert decode_message(memoryview(shorter)) == message
    long = Open(**{name: getattr(message, name) for name in message.__struct_fields__} | {"traceparent": "0" * 56})
    with pytest.raises(MalformedMessage):
        decode_message(memoryview(encode(long)[0][8:]))


async def test_one_session_cannot_fill_the_operators_collector() -> None:
    world, collected = World(), Collected()
    async with running_node(world, "node", Span(0, 1)) as node:
        node.desk.tracing = collected.tracing
        client = FakeClient(world, [node])
        tokens = MAX_STEPS + 3
        await client.open(max_tokens=tokens, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
        client.pay(tokens * 10)
        for number in range(tokens):
            client.step(number + 1, number, inputs(1))
            await client.result()
        client.pipes[0].send(Close(client.session))
        await client.expect(Closed)
    assert len(collected.named("corolla.node.step")) == MAX_STEPS
    assert (collected.one("corolla.node.session").attributes or {})["steps"] == tokens


@pytest.fixture
def without_opentelemetry() -> Iterator[None]:
    real = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    builtins.__import__ = importing
    yield
    builtins.__import__ = real


def test_nothing_is_traced_unless_the_environment_names_an_endpoint() -> None:
    assert tracing_from_environment("node", {}) is None


def test_a_missing_library_is_said_and_does_no_harm(without_opentelemetry: None) -> None:
    with capture_logs() as logs:
        assert tracing_from_environment("node", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) is None
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("nothing is traced: install corolla[tracing]", "warning")
    ]


async def test_spans_reach_a_collector_over_otlp(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[str, bytes]] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        got.append((head.split()[1].decode(), await reader.readexactly(size)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(collect, "127.0.0.1", 0) as server:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        tracing = tracing_from_environment("corolla-node")
        assert tracing is not None
        span = tracing.begin("corolla.session")
        assert span is not None
        span.end()
        await asyncio.to_thread(tracing.close)
    ((path, body),) = got
    assert path == "/v1/traces"
    assert b"corolla-node" in body or body[:2] == b"\x1f\x8b"
