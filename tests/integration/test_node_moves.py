"""A node goes to blocks that are needed more while a text is generated over it: the same text, nobody is dropped."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from time import time
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from client_world import BLOCKS, ClientWorld, client_world, greedy_ids, make_checkpoint
from node_peers import MODEL, FakeDisk, running_node, signer

from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import ModelError, NetworkError
from corolla_core.protocol.ids import ModelRoot, address
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState, SignedAnnouncement
from corolla_core.swarm.messages import AnyMessage, AskOpening, Opening
from corolla_core.swarm.openings import BOTH, check_opening
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir
from corolla_node.loading import Loaded
from corolla_node.metrics import NodeMetrics
from corolla_node.placement import Placement
from corolla_node.running import Ready, Running
from corolla_node.serving import Serving
from corolla_node.stop import Stop

pytestmark = pytest.mark.anyio
FIRST, SECOND = Span(0, BLOCKS // 2), Span(BLOCKS // 2, BLOCKS)
PROMPT, TOKENS = "The capital of France is", 30
MOVER = signer("mover")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


class Board:
    """The mover's directory: keeps what it announces, and shows it three others over its blocks once they are there."""

    peer_id = ""

    def __init__(self, world: ClientWorld) -> None:
        self.world = world
        self.announced: list[Announcement] = []
        self.crowded = False

    async def announce(self, signed: SignedAnnouncement) -> None:
        self.announced.append(signed.announcement)

    async def withdraw(self, last: Announcement, _signer: object) -> None:
        self.announced.append(replace(last, state=NodeState.OFFLINE))

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        found = await self.world.directory.lookup(model_root, num_blocks)
        others = [address(bytes([n]) * 20) for n in range(1, 4)] if self.crowded else []
        return found + [replace(found[0], account=each, span=FIRST) for each in others]

    async def ended(self) -> None:
        await asyncio.Event().wait()

    def addresses(self) -> list[str]:
        return []


class Redeemed:
    total = held = 0

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def redeem(self, *, final: bool = False) -> int:
        return 0


class Source:
    def __init__(self, checkpoint: Checkpoint, *, room: bool) -> None:
        self.checkpoint, self.room = checkpoint, room
        self.broken: Span | None = None
        self.loads: list[Span] = []
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def load(self, span: Span) -> Loaded:
        self.loads.append(span)
        await self.may_load.wait()
        if span == self.broken:
            raise ModelError("the disk is full")
        return Loaded(load_blocks(self.checkpoint, span), 100_000, 0.0)

    def has_room(self, span: Span) -> bool:
        return self.room


class Mover:
    """A node over FIRST that would go to SECOND when FIRST is crowded, among a world's others."""

    def __init__(self, world: ClientWorld, folder: Path, *, room: bool = True, move_grace: float = 60.0) -> None:
        self.world, self.disk, self.stop = world, FakeDisk(), Stop()
        self.board, self.source = Board(world), Source(world.checkpoint, room=room)
        self.events: asyncio.Queue[Ready] = asyncio.Queue()
        self.certificates = 0
        settings = NodeSettings(device="cpu", dtype="float32", move_grace=move_grace, drain_timeout=0.1, metrics_port=0)
        placement = Placement(
            self.board, MOVER.address, MODEL, BLOCKS, interval=0.02, threshold=0.2, clock=time, rng=Random(1)
        )
        parts: Any = (
            settings,
            SimpleNamespace(name="test"),
            DataDir(folder),
            MOVER,
            self.board,
            Manifest.beside(world.checkpoint),
            self.source,
            self.serve,
            placement,
            Redeemed(),
            None,
            NodeMetrics(),
        )
        self.running = Running(*parts)

    @asynccontextmanager
    async def serve(self, loaded: Loaded) -> AsyncIterator[Serving]:
        span = loaded.blocks.span
        async with running_node(
            self.world.world, "mover", span, disk=self.disk, blocks=loaded.blocks, kv_budget=10**8
        ) as node:
            self.world.nodes["mover"] = node
            self.certificates += 1  # a listener shows a new one
            node.endpoint = msgspec.structs.replace(node.endpoint, cert_hash=bytes([self.certificates]) * 32)
            listener: Any = SimpleNamespace(port=1, cert_hash=bytes(32), connections=())
            desk = node.desk
            shown = (desk.timings, desk.bookkeeper, node.kv, desk.prefixes, self.disk.archive, desk.links)
            yield Serving(node.server, node.server, listener, *shown)
            self.world.world.kill(node)  # its listener closes, and every connection with it

    async def opened(self, receipt: Any) -> None:
        """Raises unless the node opens all rows of this receipt."""
        answers: asyncio.Queue[tuple[AnyMessage, memoryview]] = asyncio.Queue()
        handler: Any = SimpleNamespace(
            on_message=lambda _conn, message, payload: answers.put_nowait((message, payload)),
            on_lost=lambda _conn, _error: None,
        )
        pipe = self.world.world.connect(signer("validator").address, handler, self.world.nodes["mover"].endpoint)
        pipe.send(AskOpening(receipt.hash(), [], True, True))
        async with asyncio.timeout(5):
            message, payload = await answers.get()
        assert isinstance(message, Opening)
        check_opening(receipt, message, payload, positions=(), sides=BOTH)


@asynccontextmanager
async def up(checkpoint: Checkpoint, folder: Path, **options: Any) -> AsyncIterator[Mover]:
    async with client_world(checkpoint, folder, {"second": SECOND}) as world:
        mover = Mover(world, folder, **options)
        task = asyncio.create_task(
            mover.running.until_stopped(mover.stop, await mover.source.load(FIRST), mover.events.put_nowait)
        )
        try:
            async with asyncio.timeout(60):
                assert (await mover.events.get()).event == "ready"
                yield mover
        finally:
            mover.stop.drain()
            assert await task is None
        assert mover.board.announced[-1].state is NodeState.OFFLINE


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 -- what it looks at has no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("room", [True, False])
async def test_a_node_moves_while_a_session_generates(checkpoint: Checkpoint, tmp_path: Path, room: bool) -> None:
    async with up(checkpoint, tmp_path, room=room) as mover:
        world = mover.world
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
        for _ in range(3):
            await anext(stream)
        assert [hop.account for hop in stream.route] == [MOVER.address, world.nodes["second"].account]

        mover.board.crowded = True
        await until(lambda: mover.board.announced[-1].state is NodeState.LOADING)
        assert mover.board.announced[-1].span == SECOND
        status = mover.running.status()
        assert (status["span"], status["state"], status["sessions"]) == (str(SECOND), "loading", 1)
        if room:
            await until(lambda: mover.source.loads == [FIRST, SECOND])
        else:
            await asyncio.sleep(0.2)
            assert mover.source.loads == [FIRST]  # the old blocks must go first
        async for _ in stream:
            await asyncio.sleep(0.005)
        made = stream.generation
        ids = world.model.tokenizer(PROMPT).input_ids
        assert made.token_ids == greedy_ids(checkpoint, ids, TOKENS)
        assert (made.usage.failovers, len(made.usage.per_node)) == (0, 2)

        moved = await mover.events.get()
        assert (moved.event, moved.span) == ("moved", SECOND)
        await until(lambda: mover.board.announced[-1].state is NodeState.ONLINE)
        status = mover.running.status()
        assert (status["span"], status["state"], status["moves"]) == (str(SECOND), "online", 1)
        url = f"http://127.0.0.1:{moved.metrics_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())
        assert b"corolla_node_moves_total 1.0" in page
        assert b"corolla_node_online 1.0" in page
        assert mover.source.loads == [FIRST, SECOND]

        # What it signed for over its old blocks it opens as before.
        old = [signed.receipt for signed in world.receipts if signed.signer() == MOVER.address]
        assert sum(receipt.n_pos for receipt in old) == len(ids) + TOKENS - 1
        for receipt in old:
            assert receipt.span == FIRST
            await mover.opened(receipt)

        # And it serves at its new blocks, in another's place.
        await world.add_node("first", FIRST)
        world.kill("second")
        await world.peers.refresh(within=0)
        again = await world.engine.stream(PROMPT, SamplingParams(max_tokens=8)).read()
        assert again.token_ids == made.token_ids[:8]
        assert again.route[-1].account == MOVER.address


async def test_a_session_that_outlasts_the_grace_goes_on_at_another_node(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    async with up(checkpoint, tmp_path, move_grace=0.05) as mover:
        world = mover.world
        stream = world.engine.stream(PROMPT, SamplingParams(max_tokens=TOKENS))
        await anext(stream)
        await world.add_node("first", FIRST)
        mover.board.crowded = True
        assert (await mover.events.get()).event == "moved"
        made = await stream.read()
        assert made.token_ids == greedy_ids(checkpoint, world.model.tokenizer(PROMPT).input_ids, TOKENS)
        assert made.usage.failovers >= 1
        assert made.route[0].account == world.nodes["first"].account


async def test_a_node_whose_new_blocks_cannot_be_loaded_stays(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with up(checkpoint, tmp_path, room=False) as mover:
        mover.source.broken = SECOND
        mover.board.crowded = True
        await until(lambda: mover.source.loads == [FIRST, SECOND, FIRST])
        mover.board.crowded = False
        await until(lambda: mover.board.announced[-1].state is NodeState.ONLINE)
        status = mover.running.status()
        assert (status["span"], status["state"], status["moves"]) == (str(FIRST), "online", 0)
        made = await mover.world.engine.stream(PROMPT, SamplingParams(max_tokens=4)).read()
        assert made.route[0].account == MOVER.address


async def test_a_node_that_can_load_nothing_leaves_and_says_why(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Gone(Source):
        async def load(self, span: Span) -> Loaded:
            if len(self.loads):
                raise ModelError("no disk")
            return await super().load(span)

    async with client_world(checkpoint, tmp_path, {"second": SECOND}) as world:
        mover = Mover(world, tmp_path, room=False)
        mover.source = mover.running._source = Gone(checkpoint, room=False)
        mover.board.crowded = True
        async with asyncio.timeout(30):
            lost = await mover.running.until_stopped(
                mover.stop, await mover.source.load(FIRST), mover.events.put_nowait
            )
        assert isinstance(lost, ModelError)
        assert mover.board.announced[-1].state is NodeState.OFFLINE


@pytest.mark.parametrize("room", [True, False])
async def test_a_node_told_to_stop_while_it_moves_leaves_in_order(
    checkpoint: Checkpoint, tmp_path: Path, room: bool
) -> None:
    async with up(checkpoint, tmp_path, room=room) as mover:
        mover.source.may_load.clear()
        mover.board.crowded = True
        await until(lambda: len(mover.source.loads) == 2)
        mover.stop.drain()
        await until(lambda: mover.board.announced[-1].state is NodeState.OFFLINE)
    assert DataDir(tmp_path).status() is not None


async def test_a_directory_that_does_not_answer_moves_nobody(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with up(checkpoint, tmp_path) as mover:
        asked = asyncio.Event()

        async def silent(model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
            asked.set()
            raise NetworkError("nobody there")

        mover.board.lookup = silent  # type: ignore[method-assign]
        await asked.wait()
        await asyncio.sleep(0.1)
        assert mover.running.status()["state"] == "online"
