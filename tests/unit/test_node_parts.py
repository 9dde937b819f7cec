"""The node's small parts: fair turns, memory lent once, books that keep what fails, a folder for one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from node_peers import World, inputs, running_node, signer, until

from corolla_core.protocol.errors import (
    ConfigError,
    InvalidInput,
    NetworkError,
    OutOfCapacity,
    PeerUnreachable,
    PositionMismatch,
    StoreError,
)
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, TrancheId
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement, NodeState, SignedAnnouncement
from corolla_core.swarm.messages import Ask
from corolla_node.announcer import Announcer, Condition
from corolla_node.bookkeeper import Batch, Bookkeeper
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir
from corolla_node.kept_rows import KeptRows
from corolla_node.kv_pool import KvPool
from corolla_node.links import Links, Outlet
from corolla_node.stop import Stop, supervise

pytestmark = pytest.mark.anyio
A = Span(0, 2)


async def test_memory_is_lent_within_the_budget_and_returned_once() -> None:
    pool = KvPool(100)
    first, second = pool.reserve(60), pool.reserve(40)
    with pytest.raises(OutOfCapacity) as refusal:
        pool.reserve(1)
    assert (refusal.value.needed, refusal.value.free) == (1, 0)
    first.release()
    first.release()
    assert pool.free == 60
    second.release()
    assert pool.free == 100


async def test_kept_rows_follow_the_cache_and_remember_the_order_before_the_last_step() -> None:
    rows = KeptRows(2, 8, 4, torch.float32)
    x = inputs(5, batch=2)
    rows.append(x[:, :4])
    rows.reorder([1, 1])
    rows.append(x[:, 4:])
    assert torch.equal(rows.read(0, 5), torch.cat([x[[1, 1]][:, :4], x[:, 4:]], dim=1))
    assert torch.equal(rows.replay(0, 4, upto=4), x[:, :4])
    assert torch.equal(rows.replay(0, 5, upto=5), rows.read(0, 5))
    rows.crop(2)
    assert torch.equal(rows.replay(0, 2, upto=2), x[[1, 1]][:, :2])
    with pytest.raises(PositionMismatch):
        rows.read(0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
async def test_rows_of_one_sequence_are_kept_as_they_come(dtype: torch.dtype) -> None:
    rows, x = KeptRows(1, 8, 4, dtype), inputs(8).to(dtype)
    rows.append(x[:, :3].contiguous())
    rows.append(x[:, 3:4].contiguous())
    rows.reorder([0])
    rows.append(x[:, 4:6].contiguous())
    rows.crop(5)
    rows.append(x[:, 5:6].contiguous())
    assert torch.equal(rows.read(0, 6), x[:, :6])
    assert torch.equal(rows.replay(0, 4, upto=4), x[:, :4])


async def test_what_a_failing_store_refuses_is_written_later_in_order() -> None:
    written: list[Batch] = []
    failures = [StoreError("locked", reason="locked"), StoreError("locked", reason="locked")]

    async def write(batch: Batch) -> None:
        if failures:
            raise failures.pop()
        written.append(batch)

    bookkeeper, told = Bookkeeper(write), []
    tranche = TrancheId(b"t" * 32)
    bookkeeper.charge(tranche, Nectar(1))
    bookkeeper.saved(lambda: told.append("first"))
    with pytest.raises(StoreError):
        await bookkeeper.flush()
    bookkeeper.charge(tranche, Nectar(2))
    bookkeeper.saved(lambda: told.append("second"))
    with pytest.raises(StoreError):
        await bookkeeper.flush()
    assert told == []
    await bookkeeper.flush()
    assert [batch.charges for batch in written] == [{tranche: 2}]
    assert told == ["first", "second"]


class Board:
    def __init__(self) -> None:
        self.posted: list[Announcement] = []
        self.withdrawn: list[Announcement] = []
        self.down = False

    async def announce(self, signed: SignedAnnouncement) -> None:
        if self.down:
            raise NetworkError("no peer took it")
        self.posted.append(signed.announcement)

    async def withdraw(self, last: Announcement, by: object) -> None:
        if self.down:
            raise NetworkError("no peer took it")
        self.withdrawn.append(last)


def template(account: Address) -> Announcement:
    return Announcement(
        network="devnet",
        model_root=ModelRoot(b"m" * 32),
        span=A,
        account=account,
        peer_id="",
        host="h",
        port=1,
        cert_hash=Hash32(b"c" * 32),
        price_per_token_block=1,
        numeric_class=NumericClass.FP32,
        wire_dtypes=("float32",),
        throughput=1,
        kv_free_tokens=0,
        state=NodeState.LOADING,
        issued_at=0,
        expires_at=1,
    )


async def test_the_swarm_is_told_again_when_the_nodes_condition_changes() -> None:
    identity, board = signer("announcer"), Board()
    condition = Condition(NodeState.ONLINE, 1500, 100)
    announcer = Announcer(
        board, template(identity.address), signer=identity, condition=lambda: condition, clock=lambda: 100.0
    )
    await announcer.announce()
    running = asyncio.create_task(announcer.run())
    await until(lambda: len(board.posted) == 2)
    condition = Condition(NodeState.DRAINING, 1500, 0)
    announcer.changed()
    await until(lambda: len(board.posted) == 3)
    running.cancel()
    assert [a.state for a in board.posted] == [NodeState.ONLINE, NodeState.ONLINE, NodeState.DRAINING]
    assert [a.issued_at for a in board.posted] == [100_000, 100_001, 100_002]
    await announcer.withdraw()
    assert board.withdrawn == [board.posted[-1]]
    board.down = True
    await announcer.withdraw()


async def test_one_link_serves_all_sessions_and_its_loss_reaches_each_of_them() -> None:
    world = World()
    async with running_node(world, "b", A) as b, asyncio.TaskGroup() as tasks:
        me: Address = signer("me").address
        links = Links(world.dialer(me), tasks, linger=0.01)
        links.handler = Deaf(links)
        losses: list[tuple[Outlet, NetworkError]] = []
        one, two = (links.outlet(b.endpoint, lambda outlet, error: losses.append((outlet, error))) for _ in range(2))
        one.send(Ask(), None)  # waits for the dial
        up: list[int] = []
        two.when_up(lambda: up.append(1))
        await until(lambda: up == [1])
        assert len([pipe for pipe in world.pipes if pipe.peer == b.account]) == 1
        world.kill(b)
        await until(lambda: len(losses) == 2)
        assert {outlet for outlet, _ in losses} == {one, two}
        with pytest.raises(PeerUnreachable):
            one.send(Ask(), None)
        third = links.outlet(b.endpoint, lambda outlet, error: losses.append((outlet, error)))
        await until(lambda: len(losses) == 3)
        assert isinstance(third.error, PeerUnreachable)


class Deaf:
    def __init__(self, links: Links) -> None:
        self.links = links

    def on_message(self, conn: object, message: object, payload: memoryview) -> None:
        pass

    def on_lost(self, conn: object, error: NetworkError | None) -> None:
        self.links.lost(conn, error)  # type: ignore[arg-type]


async def test_an_idle_link_is_closed_after_a_while() -> None:
    world = World()
    async with running_node(world, "b", A) as b, asyncio.TaskGroup() as tasks:
        links = Links(world.dialer(signer("me").address), tasks, linger=0.01)
        links.handler = Deaf(links)
        outlet = links.outlet(b.endpoint, lambda outlet, error: None)
        outlet.send(Ask(), None)
        await until(lambda: bool(world.pipes))
        outlet.release()
        await until(lambda: world.pipes[0].closed)


def test_a_folder_is_one_nodes_until_it_dies(tmp_path: Path) -> None:
    folder = DataDir(tmp_path / "node")
    assert folder.running_pid() is None
    code = (
        "import sys, pathlib; from corolla_node.data_dir import DataDir\n"
        f"lock = DataDir(pathlib.Path({str(folder.path)!r})).lock(); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert folder.running_pid() == other.pid
        with pytest.raises(ConfigError, match=str(other.pid)):
            folder.lock()
        other.kill()
        other.wait()
    assert folder.running_pid() is None
    lock = folder.lock()
    folder.write_status({"state": "online"})
    assert folder.status() == {"state": "online"}
    (folder.path / "status.json").write_text("[half")
    assert folder.status() is None
    lock.release()
    folder.lock().release()


@pytest.mark.parametrize(
    ("text", "size"), [("1GiB", 2**30), ("512MB", 2**29), ("1.5 k", 1536), ("77", 77), (4096, 4096)]
)
def test_sizes_may_have_units(text: object, size: int) -> None:
    assert NodeSettings(kv_budget=text).kv_budget == size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [{"kv_budget": "lots"}, {"blocks": "3:2"}, {"blocks": "all"}, {"stake": "-1"}, {"price": -1}, {"dtype": "int3"}],
)
def test_a_setting_that_cannot_be_meant_is_refused(bad: dict[str, object]) -> None:
    from corolla_core.config import load_settings

    with pytest.raises(ConfigError, match=next(iter(bad))):
        load_settings(NodeSettings, flags=bad, environ={})


async def test_nothing_can_be_lent_from_an_empty_pool() -> None:
    with pytest.raises(InvalidInput):
        KvPool(0)
    with pytest.raises(InvalidInput):
        KvPool(1).reserve(-1)


async def test_a_node_told_to_stop_before_it_is_up_does_not_come_up() -> None:
    stop, steps = Stop(), []

    async def loading() -> None:
        steps.append("loading")
        await asyncio.sleep(60)
        steps.append("up")

    supervised = asyncio.create_task(supervise(loading(), stop))
    await until(lambda: steps == ["loading"])
    stop.drain()
    async with asyncio.timeout(1):
        await supervised
    assert steps == ["loading"]


async def test_a_node_that_is_up_leaves_by_itself_and_its_failure_is_not_hidden() -> None:
    stop = Stop()

    async def serving() -> None:
        stop.up = True
        await stop.asked.wait()
        raise NetworkError("p2pd has ended")

    supervised = asyncio.create_task(supervise(serving(), stop))
    await until(lambda: stop.up)
    stop.drain()
    assert not stop.at_once.is_set()
    stop.drain()
    assert stop.at_once.is_set()
    with pytest.raises(NetworkError):
        await supervised


async def test_nothing_is_announced_after_the_goodbye() -> None:
    identity, board = signer("announcer"), Board()
    condition = Condition(NodeState.DRAINING, 1500, 100)
    announcer = Announcer(
        board, template(identity.address), signer=identity, condition=lambda: condition, clock=lambda: 100.0
    )
    await announcer.announce()
    await asyncio.gather(announcer.withdraw(), announcer.announce())
    assert len(board.posted) == 1
    assert board.withdrawn == board.posted


async def test_a_first_announcement_that_nobody_takes_is_tried_again() -> None:
    identity, board = signer("announcer"), Board()
    condition = Condition(NodeState.ONLINE, 1500, 100)
    announcer = Announcer(
        board, template(identity.address), signer=identity, condition=lambda: condition, clock=lambda: 100.0
    )
    board.down = True
    with pytest.raises(NetworkError):
        await announcer.join(patience=0.05)
    joining = asyncio.create_task(announcer.join(patience=10))
    await asyncio.sleep(0.05)
    board.down = False
    await joining
    assert len(board.posted) == 1
