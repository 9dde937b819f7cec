"""A real DHT of real p2pd processes on loopback: found, withdrawn, poisoned, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from swarm_peers import Recorder, echo, new_signer, step_of

from corolla_core.protocol.errors import ConfigError, InvalidInput, NetworkError, PeerMisbehaved, PeerUnreachable
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, address_bytes
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.dial import dial
from corolla_core.swarm.directory import Directory
from corolla_core.swarm.libp2p import Libp2p
from corolla_core.swarm.messages import Endpoint

pytestmark = pytest.mark.anyio
MODEL = ModelRoot(b"m" * 32)


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def announcement(account: Address, **changes: Any) -> Announcement:
    now = int(time.time() * 1000)
    fields: dict[str, Any] = {
        "network": "test",
        "model_root": MODEL,
        "span": Span(3, 20),
        "account": account,
        "peer_id": "12D3KooW",
        "host": "127.0.0.1",
        "port": 4001,
        "cert_hash": Hash32(b"c" * 32),
        "price_per_token_block": 10**12,
        "numeric_class": NumericClass.FP32,
        "wire_dtypes": ("float32",),
        "throughput": 14_500,
        "kv_free_tokens": 8192,
        "state": NodeState.ONLINE,
        "issued_at": now,
        "expires_at": now + 60_000,
    }
    return Announcement(**{**fields, **changes})


@contextlib.asynccontextmanager
async def swarm(nodes: int = 1) -> AsyncIterator[list[Directory]]:
    """One bootstrap peer, `nodes` more, and a client last."""
    async with contextlib.AsyncExitStack() as stack:

        async def join(**how: Any) -> Directory:
            directory = await Directory.start(network="test", **how)
            stack.push_async_callback(directory.stop)
            return directory

        first = await join()
        found = [first]
        for _ in range(nodes):
            found.append(await join(bootstrap=first.addresses()))
        found.append(await join(bootstrap=first.addresses(), client_mode=True))
        yield found


async def test_a_client_finds_what_nodes_announce_until_they_withdraw() -> None:
    async with swarm(nodes=2) as (_, left, right, client):
        signers = [new_signer(), new_signer()]
        here = announcement(signers[0].address, span=Span(0, 20))
        there = announcement(signers[1].address, span=Span(17, 30))
        await left.announce(here.sign(signers[0]))
        await right.announce(there.sign(signers[1]))
        assert await client.lookup(MODEL, 30) == [here, there]
        assert await client.lookup(ModelRoot(bytes(32)), 30) == []
        await right.withdraw(there, signers[1])
        assert await client.lookup(MODEL, 30) == [here]


async def test_the_newest_announcement_wins_and_an_expired_one_is_gone() -> None:
    async with swarm() as (_, node, client):
        signer = new_signer()
        now = int(time.time() * 1000)
        old = announcement(signer.address, issued_at=now, expires_at=now + 4000)
        new = announcement(signer.address, span=Span(20, 30), issued_at=now + 1, expires_at=now + 5000)
        await node.announce(old.sign(signer))
        await node.announce(new.sign(signer))
        with pytest.raises(NetworkError):  # going back is refused by those who store it
            await node.announce(announcement(signer.address, span=Span(20, 30), expires_at=now + 4500).sign(signer))
        assert await client.lookup(MODEL, 30) == [new]
        await asyncio.sleep((new.expires_at + 100) / 1000 - time.time())
        assert await client.lookup(MODEL, 30) == []


async def test_a_peer_cannot_store_what_it_may_not_say() -> None:
    async with swarm() as (bootstrap, node, client):
        honest, attacker = new_signer(), new_signer()
        good = announcement(honest.address)
        await node.announce(good.sign(honest))
        # An attacker speaks to the DHT below our API: another's subkey, junk, and a plain value over the dictionary.
        stolen = announcement(attacker.address).sign(attacker)
        key = f"corolla/test/{MODEL.hex()}/0"
        expires = time.time() + 120
        for value, subkey in (
            (stolen.encode(), address_bytes(honest.address)),
            (b"junk", address_bytes(attacker.address)),
            (bytes(100_000), address_bytes(attacker.address)),
            (b"plain", None),
        ):
            assert not await client._node.store(key, value, expires, subkey=subkey, exclude_self=True)
        assert await client.lookup(MODEL, 30) == [good]
        with pytest.raises(InvalidInput):
            await node.announce(announcement(honest.address, network="other").sign(honest))
        assert bootstrap.peer_id != node.peer_id


async def test_an_identity_file_keeps_the_peer_id(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "peer.key"
    ids = []
    for _ in range(2):
        directory = await Directory.start(network="test", identity_path=path)
        ids.append(directory.peer_id)
        assert all(maddr.endswith(f"/p2p/{directory.peer_id}") for maddr in directory.addresses())
        await directory.stop()
        assert not psutil.pid_exists(directory.daemon_pid)
    assert ids[0] == ids[1]
    assert path.stat().st_mode & 0o077 == 0


async def test_a_bootstrap_peer_that_is_gone_or_no_multiaddr_is_a_typed_error() -> None:
    directory = await Directory.start(network="test")
    gone = directory.addresses()
    await directory.stop()
    with pytest.raises(NetworkError):
        await Directory.start(network="test", bootstrap=gone)
    for bad in ("", "/ip4/127.0.0.1/tcp/1", "http://x", "/ip4/127.0.0.1/tcp/1/p2p/junk"):
        with pytest.raises(ConfigError):
            await Directory.start(network="test", bootstrap=[bad])


async def test_a_node_finds_its_bootstrap_peer_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    first = await Directory.start(network="test", identity_path=path)
    [address] = first.addresses()
    node = await Directory.start(network="test", bootstrap=[address])
    try:
        await first.stop()
        signer = new_signer()
        await node.announce(announcement(signer.address).sign(signer))  # it still stores for itself
        first = await Directory.start(network="test", identity_path=path, listen=[address.split("/p2p/")[0]])
        later = announcement(signer.address)
        deadline = time.monotonic() + 20
        while await first.lookup(MODEL, 30) != [later] and time.monotonic() < deadline:
            later = announcement(signer.address)
            with contextlib.suppress(NetworkError):
                await node.announce(later.sign(signer))
            await asyncio.sleep(0.3)
        assert await first.lookup(MODEL, 30) == [later]
    finally:
        await node.stop()
        await first.stop()


async def test_a_dead_p2pd_is_a_typed_error() -> None:
    directory = await Directory.start(network="test")
    try:
        os.kill(directory.daemon_pid, signal.SIGKILL)
        await asyncio.sleep(0.3)
        with pytest.raises(NetworkError):
            await directory.lookup(MODEL, 30)
        signer = new_signer()
        with pytest.raises(NetworkError):
            await directory.announce(announcement(signer.address).sign(signer))
    finally:
        await directory.stop()


async def test_the_bootstrap_module_says_where_it_is_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await _bootstrap("--identity", str(tmp_path / "peer.key"), "--listen", "/ip4/127.0.0.1/tcp/0")
    ready = await _first_line(process)
    assert ready["event"] == "ready"
    children = psutil.Process(process.pid).children(recursive=True)
    assert [child.name() for child in children] == ["p2pd"]
    client = await Directory.start(network="devnet", bootstrap=[ready["maddr"]], client_mode=True)
    assert await client.lookup(MODEL, 30) == []
    await client.stop()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 10) == 0
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


async def test_p2pd_does_not_outlive_a_killed_parent_nor_hold_its_stdout() -> None:
    process = await _bootstrap()
    await _first_line(process)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGKILL)
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.read(), 10) == b""  # the end of the pipe: nobody else has it open
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    await process.wait()


async def test_what_a_killed_peer_left_on_disk_is_swept_and_what_others_use_is_kept() -> None:
    def leave_behind(name: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="corolla-p2p-"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(folder / "p2pd.sock"))
        if name == "old":
            os.utime(folder / "p2pd.sock", (0, 0))
        return folder

    old, young = leave_behind("old"), leave_behind("young")
    directory = await Directory.start(network="test")
    other = await Directory.start(network="test", bootstrap=directory.addresses())
    try:
        assert not old.exists()
        assert young.exists()
        assert await directory.lookup(MODEL, 30) == []
    finally:
        shutil.rmtree(young)
        await other.stop()
        await directory.stop()


async def _bootstrap(*args: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "corolla_core.swarm.bootstrap", *args), stdout=asyncio.subprocess.PIPE
    )


async def _first_line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    return json.loads(await asyncio.wait_for(process.stdout.readline(), 60))  # type: ignore[no-any-return]


async def test_a_peer_without_a_direct_address_is_reached_over_libp2p() -> None:
    async with swarm(nodes=0) as (serving, client):
        server, me = new_signer(), new_signer()
        theirs, ours = Recorder(echo), Recorder()
        listener, dialer = Libp2p(serving), Libp2p(client)
        await listener.start(server, theirs)
        endpoint = Endpoint(address_bytes(server.address), "127.0.0.1", 1, bytes(32), serving.peer_id)
        conn = await dial(endpoint, identity=me, handler=ours, fallback=dialer)
        payload = os.urandom(1_000_000)
        conn.send(step_of(payload), payload)
        _, message, got = await ours.next_message()
        assert (message, got) == (step_of(payload), payload)
        served, _, _ = await theirs.next_message()
        assert (conn.peer, served.peer) == (server.address, me.address)
        # An account that is not the one behind this peer id is refused, and so is a peer id nobody has.
        wrong = Endpoint(address_bytes(me.address), "127.0.0.1", 1, bytes(32), serving.peer_id)
        with pytest.raises(PeerMisbehaved):
            await dialer.dial(wrong, identity=me, handler=Recorder())
        for peer_id in ("", "junk", client.peer_id):
            nobody = Endpoint(address_bytes(me.address), "127.0.0.1", 1, bytes(32), peer_id)
            with pytest.raises(PeerUnreachable):
                await dialer.dial(nobody, identity=me, handler=Recorder())
        await conn.close()
        _, error = await theirs.next_loss()
        assert isinstance(error, PeerUnreachable)
        await listener.stop()
        with pytest.raises(PeerUnreachable):
            await dialer.dial(endpoint, identity=me, handler=Recorder())
        await dialer.stop()


async def test_a_server_killed_behind_libp2p_is_noticed() -> None:
    async with swarm(nodes=0) as (serving, client):
        server, ours = new_signer(), Recorder()
        await Libp2p(serving).start(server, Recorder())
        endpoint = Endpoint(address_bytes(server.address), "127.0.0.1", 1, bytes(32), serving.peer_id)
        await Libp2p(client).dial(endpoint, identity=new_signer(), handler=ours)
        os.kill(serving.daemon_pid, signal.SIGKILL)
        _, error = await ours.next_loss()
        assert isinstance(error, PeerUnreachable)
