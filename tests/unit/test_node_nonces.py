"""A node signs one chain of receipts under a client's nonce, and never a second one: not even after it was killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from books import NOW, PAYEE, PAYER, receipt, session_id
from databases import database, postgres_server, store
from node_peers import FakeClient, FakeDisk, World, inputs, running_node, until

from corolla_core.protocol.errors import NonceReused, OutOfCapacity
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import UnixTime
from corolla_core.store.node_store import NodeStore
from corolla_core.store.nonces import NonceLog
from corolla_core.store.store import Store
from corolla_core.swarm.messages import Opened, Receipt

__all__ = ["database", "postgres_server", "store"]
TESTS = Path(__file__).resolve().parent.parent
A = Span(0, 2)
NONCE = b"n" * 32


@pytest.mark.anyio
async def test_a_restarted_node_refuses_a_nonce_and_signs_no_second_chain_under_it() -> None:
    disk, x = FakeDisk(), inputs(3)
    for run in range(2):
        world = World()
        async with running_node(world, "a", A, disk=disk) as a:
            client = FakeClient(world, [a])
            client.pipes[0].send(client.open_message(0, client_nonce=NONCE))
            if run == 0:
                await client.expect(Opened)
                client.pay(10**5)
                client.step(1, 0, x)
                await client.expect(Receipt)
            else:
                error, _ = await client.expect_fault()
                assert isinstance(error, NonceReused)
                assert error.nonce == NONCE
                assert (a.server.sessions, a.kv.used) == (0, 0)
                assert (await client.open())[0].session == client.session  # a fresh one is welcome
    under = [signed for signed in disk.receipts if signed.receipt.client_nonce == NONCE]
    assert [signed.receipt.prev_receipt_hash for signed in under] == [bytes(32)]


@pytest.mark.anyio
async def test_one_nonce_opens_one_session_however_many_ask_at_once() -> None:
    world = World()
    async with running_node(world, "a", A) as a:
        clients = [FakeClient(world, [a], name=f"client {n}") for n in range(4)]
        for client in clients:
            client.pipes[0].send(client.open_message(0, client_nonce=NONCE))
        await until(lambda: sum(len(client.received) for client in clients) == 4)
        assert a.server.sessions == 1


@pytest.mark.anyio
async def test_who_is_refused_a_session_has_used_up_no_nonce() -> None:
    world = World()
    async with running_node(world, "a", A, kv_budget=10) as a:
        client = FakeClient(world, [a])
        client.pipes[0].send(client.open_message(0, client_nonce=NONCE))
        error, _ = await client.expect_fault()
        assert isinstance(error, OutOfCapacity)
        assert a.disk.nonces == set()


# ---- the store ----


def test_a_claimed_nonce_is_refused_to_everybody(store: Store) -> None:
    log = NonceLog(store)
    log.claim(NONCE, session_id(1), PAYER.address, now=NOW)
    for client in (PAYER, PAYEE):
        with pytest.raises(NonceReused):
            log.claim(NONCE, session_id(2), client.address, now=NOW)
    log.claim(b"o" * 32, session_id(1), PAYER.address, now=NOW)


def test_a_nonce_is_forgotten_only_when_no_receipt_of_its_session_is_left(store: Store) -> None:
    log, books = NonceLog(store), NodeStore(store)
    log.claim(NONCE, session_id(1), PAYER.address, now=UnixTime(5))
    log.claim(b"o" * 32, session_id(2), PAYER.address, now=UnixTime(5))
    log.claim(b"p" * 32, session_id(3), PAYER.address, now=UnixTime(50))
    books.record_receipt(receipt(session=1, t_out=60_000))
    assert log.forget(before=UnixTime(10)) == 1  # the second: idle since, with nothing signed
    with pytest.raises(NonceReused):
        log.claim(NONCE, session_id(4), PAYER.address, now=UnixTime(70))
    assert books.forget_receipts(before=UnixTime(61)) == 1
    assert log.forget(before=UnixTime(61)) == 2


@pytest.fixture
def killed(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A database whose writer was killed in mid-work, and the nonces it had said were taken."""
    path = tmp_path / "books.db"
    writer = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[2])
        from books import PAYER, session_id
        from corolla_core.store.nonces import NonceLog
        from corolla_core.store.store import Store
        log = NonceLog(Store.open(sys.argv[1]))
        for n in range(10**6):
            log.claim(n.to_bytes(32, "big"), session_id(n), PAYER.address, now=0)
            print(n, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", writer, str(path), str(TESTS)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    taken = [int(process.stdout.readline()).to_bytes(32, "big") for _ in range(40)]
    process.kill()
    process.wait()
    process.stdout.close()
    return path, taken


def test_every_claimed_nonce_survives_kill_9(killed: tuple[Path, list[bytes]]) -> None:
    path, taken = killed
    with Store.open(path) as opened:
        for nonce in taken:
            with pytest.raises(NonceReused):
                NonceLog(opened).claim(nonce, session_id(1), PAYER.address, now=NOW)
