"""A validator has nodes show their weights, and tells those that hold them from those that do not, or say nonsense."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fake_blocks import FakeWeights
from signed_sessions import signer, tiny_llama
from typer.testing import CliRunner

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.chunks import Chunks
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.protocol.errors import (
    CorollaError,
    Draining,
    MalformedMessage,
    NetworkError,
    PeerTimeout,
    PossessionUnavailable,
    StoreError,
    to_wire,
)
from corolla_core.protocol.ids import Hash32, ModelRoot
from corolla_core.protocol.possession import TRIES, Held, Pace
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import UnixTime
from corolla_core.store.possessions import PossessionLog, PossessionRecord
from corolla_core.store.store import Store
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import AnyMessage, AskPossession, Fault, Possession, Receipts
from corolla_validator.cli.audits import teller
from corolla_validator.cli.main import app
from corolla_validator.nodes import SwarmNodes
from corolla_validator.possession import AGAIN_SECONDS, PossessionPlan, Possessions

pytestmark = pytest.mark.anyio
SPAN = Span(1, 3)
EVERY = 1000.0
Answer = Callable[[AskPossession], AnyMessage | None]


class Node:
    """A real listener that answers questions as a test says: None is silence, a NetworkError hangs up."""

    def __init__(self, name: str, answer: Answer) -> None:
        self.signer = signer(name)
        self.answer = answer
        self.asked: list[AskPossession] = []
        self.span = SPAN
        self.state = NodeState.ONLINE
        self.listener: Listener | None = None

    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        assert isinstance(message, AskPossession)
        self.asked.append(message)
        try:
            answer = self.answer(message)
        except NetworkError as error:
            conn.drop(error)
            return
        if answer is not None:
            conn.send(answer)

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None: ...


class Swarm:
    def __init__(self, root: ModelRoot) -> None:
        self.root = root
        self.nodes: list[Node] = []
        self.now = time.time()

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return [self.announced(node) for node in self.nodes]

    def announced(self, node: Node) -> Announcement:
        port = node.listener.port if node.listener is not None else 1
        now = int(self.now * 1000)
        return Announcement(
            network="test",
            model_root=self.root,
            span=node.span,
            account=node.signer.address,
            peer_id="p",
            host="127.0.0.1",
            port=port,
            cert_hash=node.listener.cert_hash if node.listener is not None else Hash32(bytes(32)),
            price_per_token_block=1,
            numeric_class=NumericClass.FP32,
            wire_dtypes=("float32",),
            throughput=1,
            kv_free_tokens=1,
            state=node.state,
            issued_at=now,
            expires_at=now + 60_000,
        )


class World:
    def __init__(self, weights: Any, root: ModelRoot, blocks: int, store: Store) -> None:
        self.weights = weights
        self.swarm = Swarm(root)
        self.blocks = blocks
        self.store = store
        self.log = PossessionLog(store)
        self.events: list[dict[str, object]] = []
        self.nodes = SwarmNodes(signer("validator"))
        self.possessions = self.fresh()

    def fresh(self, *, seed: int = 1, nbytes: int = 10**6, slack: float = 2.0) -> Possessions:
        self.possessions = Possessions(
            self.weights,
            model_root=self.swarm.root,
            num_blocks=self.blocks,
            directory=self.swarm,
            nodes=self.nodes,
            store=self.store,
            clock=lambda: self.swarm.now,
            rng=Random(seed),
            tell=self.events.append,
            plan=PossessionPlan(EVERY, nbytes, Pace(10**9, slack)),
        )
        return self.possessions

    def honest(self, name: str) -> Answer:
        account = signer(name).address
        return lambda asked: Possession(asked.salt, list(self.weights.digests(account, asked.salt, asked.chunks)))

    @asynccontextmanager
    async def serving(self, *nodes: Node) -> AsyncIterator[None]:
        for node in nodes:
            node.listener = Listener(node.signer, node)
            await node.listener.start()
            self.swarm.nodes.append(node)
        try:
            yield
        finally:
            for node in nodes:
                assert node.listener is not None
                await node.listener.stop()

    async def ask(self, after: float = 0.0) -> None:
        self.swarm.now += after
        await self.possessions.round()

    def outcomes(self, node: Node) -> list[str]:
        return [found.outcome.value for found in self.log.records(node=node.signer.address)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def manifest(checkpoint: Checkpoint) -> Manifest:
    return build_manifest(checkpoint)


@pytest.fixture
async def world(checkpoint: Checkpoint, manifest: Manifest, tmp_path: Path) -> AsyncIterator[World]:
    async with Store.open(tmp_path / "books.db") as store:
        yield World(Chunks(checkpoint, Span(0, 4)), manifest.root, 4, store)


async def test_a_node_with_its_weights_holds_them_and_is_asked_again_after_a_while(world: World) -> None:
    node = Node("a", world.honest("a"))
    async with world.serving(node):
        await world.ask()
        await world.ask(0.4 * EVERY)
        assert world.outcomes(node) == ["held"]
        await world.ask(1.2 * EVERY)
        assert world.outcomes(node) == ["held", "held"]
    first, second = world.log.records()
    assert (first.span, first.missing, first.chunks) == (SPAN, 0, len(node.asked[0].chunks))
    assert first.taken_ms is not None
    assert first.taken_ms < first.deadline_ms
    assert first.salt != second.salt
    assert node.asked[0].chunks != node.asked[1].chunks  # in another order at least
    assert {block for block, _ in node.asked[0].chunks} == {1, 2}
    assert len(set(map(tuple, node.asked[0].chunks))) == len(node.asked[0].chunks)
    (event, _) = world.events
    assert (event["outcome"], event["doubted"], event["missing"]) == ("held", False, 0)
    assert event["mib"] == first.size / 2**20


async def test_no_more_is_asked_than_the_plan_says(world: World) -> None:
    world.fresh(nbytes=5000)
    node = Node("a", world.honest("a"))
    async with world.serving(node):
        await world.ask()
    (found,) = world.log.records()
    assert found.size >= 5000
    assert found.size - world.weights.size(node.asked[0].chunks[-1]) < 5000


async def test_weights_it_does_not_have_put_a_node_in_doubt_after_some_tries_and_one_answer_ends_it(
    world: World,
) -> None:
    lacks = Chunks(world.weights._checkpoint, Span(0, 4))

    def half(asked: AskPossession) -> AnyMessage:
        """It holds block 1 and makes up block 2."""
        account = signer("a").address
        digests = lacks.digests(account, Hash32(asked.salt), asked.chunks)
        pairs = zip(asked.chunks, digests, strict=True)
        return Possession(asked.salt, [digest if block == 1 else ONE for (block, _), digest in pairs])

    node = Node("a", half)
    async with world.serving(node):
        for _ in range(TRIES):
            await world.ask(1.6 * AGAIN_SECONDS)
        assert world.outcomes(node) == ["wrong"] * TRIES
        assert [event["doubted"] for event in world.events] == [False, False, True]
        assert {found.missing for found in world.log.records()} == {world.weights.count(2)}
        assert world.log.doubt_of(node.signer.address).doubted
        node.answer = world.honest("a")
        await world.ask(1.6 * AGAIN_SECONDS)
    assert not world.log.doubt_of(node.signer.address).doubted


async def test_the_answer_of_another_node_is_of_no_use(world: World) -> None:
    """Who passes the question on to an honest node gets that node's digests and not its own."""
    honest, relay = Node("honest", world.honest("honest")), Node("relay", world.honest("honest"))
    async with world.serving(honest, relay):
        await world.ask()
    assert (world.outcomes(honest), world.outcomes(relay)) == (["held"], ["wrong"])


async def test_who_must_fetch_the_weights_first_is_late(world: World) -> None:
    world.fresh(slack=0.2)
    node = Node("a", lambda asked: None)

    def fetches(asked: AskPossession) -> None:
        listener = node.listener
        assert listener is not None
        (conn,) = listener.connections
        asyncio.get_running_loop().call_later(0.3, conn.send, world.honest("a")(asked))

    node.answer = fetches
    async with world.serving(node):
        await world.ask()
    (found,) = world.log.records()
    assert found.outcome is Held.LATE
    assert found.taken_ms is not None
    assert found.taken_ms >= 300


def refuses(error: CorollaError) -> Answer:
    return lambda asked: Fault(to_wire(error))


def gone(asked: AskPossession) -> AnyMessage:
    raise NetworkError("hangs up")


ONE = Hash32(b"d" * 32)
NONSENSE: dict[str, tuple[Answer, Held]] = {
    "no digest": (lambda asked: Possession(asked.salt, []), Held.WRONG),
    "one too few": (lambda asked: Possession(asked.salt, [ONE] * (len(asked.chunks) - 1)), Held.WRONG),
    "one too many": (lambda asked: Possession(asked.salt, [ONE] * (len(asked.chunks) + 1)), Held.WRONG),
    "as many as fit": (lambda asked: Possession(asked.salt, [ONE] * 256), Held.WRONG),
    "another salt": (lambda asked: Possession(bytes(32), [ONE] * len(asked.chunks)), Held.WRONG),
    "another message": (lambda asked: Receipts([], False), Held.WRONG),
    "more than parses": (lambda asked: Possession(asked.salt, [ONE] * 1000), Held.WRONG),
    "short digests": (lambda asked: Possession(asked.salt, [Hash32(b"d" * 31)] * len(asked.chunks)), Held.WRONG),
    "no error at all": (lambda asked: Fault({"code": 7}), Held.WRONG),
    "silence": (lambda asked: None, Held.LATE),
    "hangs up": (gone, Held.REFUSED),
    "busy": (refuses(PossessionUnavailable("no", reason="busy")), Held.REFUSED),
    "draining": (refuses(Draining("going")), Held.REFUSED),
    "the validator's own troubles": (refuses(StoreError("yours is full", reason="full")), Held.REFUSED),
    "a timeout it made up": (refuses(PeerTimeout("slow")), Held.LATE),
    "letters no database and no terminal should get": (refuses(Draining("\0\x1b[2J\n")), Held.REFUSED),
    "markup and length": (refuses(MalformedMessage("[/red]" * 80)), Held.REFUSED),
}


@pytest.mark.parametrize("kind", NONSENSE)
async def test_whatever_a_node_answers_is_its_own_outcome_and_harms_no_other(world: World, kind: str) -> None:
    answer, outcome = NONSENSE[kind]
    world.fresh(slack=0.2 if kind == "silence" else 2.0)
    bad, good = Node("bad", answer), Node("good", world.honest("good"))
    async with world.serving(bad, good):
        await world.ask()
    assert world.outcomes(bad) == [outcome.value]
    assert world.outcomes(good) == ["held"]
    (found,) = world.log.records(node=bad.signer.address)
    assert found.missing == found.chunks
    assert len(found.why) <= 200
    assert found.why.isprintable()
    show = teller(as_json=False)
    for event in world.events:
        show(event)


async def test_a_node_that_is_down_leaving_or_serves_blocks_that_do_not_exist_is_not_asked(world: World) -> None:
    down, leaving, beyond = (Node(name, world.honest(name)) for name in ("down", "leaving", "beyond"))
    leaving.state, beyond.span = NodeState.DRAINING, Span(3, 5)
    async with world.serving(leaving, beyond):
        world.swarm.nodes.append(down)
        await world.ask()
        assert leaving.asked == beyond.asked == []
    assert world.log.records() == []


async def test_a_validator_that_starts_again_does_not_ask_all_at_once(world: World) -> None:
    node = Node("a", world.honest("a"))
    async with world.serving(node):
        await world.ask()
        world.fresh(seed=2)
        await world.ask(0.4 * EVERY)
        assert len(node.asked) == 1
        await world.ask(1.2 * EVERY)
        assert len(node.asked) == 2


async def test_its_own_lost_checkpoint_is_no_nodes_fault(tmp_path: Path) -> None:
    weights = FakeWeights(Span(0, 4))
    async with Store.open(tmp_path / "books.db") as store:
        world = World(weights, ModelRoot(b"m" * 32), 4, store)
        node = Node("a", world.honest("a"))
        async with world.serving(node):
            answers = world.honest("a")

            def then_fail(asked: AskPossession) -> AnyMessage | None:
                answer = answers(asked)
                weights.failing = StoreError("gone", reason="unavailable")
                return answer

            node.answer = then_fail
            with pytest.raises(StoreError):
                await world.ask()
            weights.failing = None
            node.answer = answers
            await world.ask()
        assert world.outcomes(node) == ["held"]


def test_the_report_shows_what_nodes_showed_and_who_is_in_doubt(tmp_path: Path) -> None:
    with Store.open(tmp_path / "books.db") as store:
        log = PossessionLog(store)
        for number, (name, outcome) in enumerate([("a", Held.WRONG)] * TRIES + [("b", Held.HELD)]):
            log.record(
                PossessionRecord(
                    salt=Hash32(bytes([number]) * 32), node=signer(name).address, span=SPAN, chunks=4, size=2**20,
                    outcome=outcome, missing=4 if outcome is Held.WRONG else 0, deadline_ms=2000, taken_ms=500, why="",
                    asked_at=UnixTime(1_800_000_000 + number),
                )
            )  # fmt: skip
    found = CliRunner().invoke(app, ["report", "--json", f"--data-dir={tmp_path}"])
    assert found.exit_code == 0
    shown = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(each["node"], each["outcome"], each["doubted"]) for each in shown] == [
        (signer("a").address, "wrong", False),
        (signer("a").address, "wrong", False),
        (signer("a").address, "wrong", True),
        (signer("b").address, "held", False),
    ]
    assert shown[0]["tells_below"] == 0.5
    only = CliRunner().invoke(app, ["report", "--json", f"--data-dir={tmp_path}", f"--node={signer('b').address}"])
    assert [json.loads(line)["outcome"] for line in only.stdout.splitlines()] == ["held"]
