"""What SQLite must withstand: a killed process, a full disk, another writer, garbage in the file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from books import LEAF, PAYEE, PROOF, kept, promise, tranche
from sqlalchemy import text

from corolla_core.protocol.errors import StoreError
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.client_store import ClientStore
from corolla_core.store.node_store import NodeStore
from corolla_core.store.store import Store

NOW = UnixTime(1_800_000_000)
TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "books.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


def test_every_acknowledged_voucher_survives_kill_9(path: Path) -> None:
    writer = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[2])
        from books import PAYEE, kept, promise, tranche
        from corolla_core.store.client_store import ClientStore
        from corolla_core.store.node_store import NodeStore
        from corolla_core.store.store import Store
        store = Store.open(sys.argv[1])
        node, client = NodeStore(store), ClientStore(store)
        for n in range(1, 10**6):
            node.record_voucher(*kept(promise(n)), now=0)
            client.raise_signed_total(tranche(1), PAYEE.address, n)
            print(n, flush=True)
        """
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", writer, str(path), str(TESTS)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(60)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        last = int([line for line in acknowledged if line.endswith(b"\n")][-1])
        with Store.open(path) as after:
            (found,) = NodeStore(after).best_vouchers()
            assert found.signed.voucher.cumulative >= last
            assert found.signed == promise(found.signed.voucher.cumulative)
            assert ClientStore(after).signed_total(tranche(1), PAYEE.address) >= last
        path.unlink()


def test_transactions_are_on_the_disk_when_they_return(store: Store) -> None:
    with store.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 5000


def test_a_full_disk_is_a_typed_error_and_loses_nothing(store: Store) -> None:
    books = NodeStore(store)
    books.record_voucher(*kept(promise(1)), now=NOW)
    with store.engine.begin() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    with store.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def write_until_full() -> None:
        for number in range(2, 200):
            books.record_voucher(*kept(promise(1, on=number)), now=NOW)

    with pytest.raises(StoreError) as full:
        write_until_full()
    assert full.value.reason == "full"
    kept_before = books.best_vouchers()
    assert promise(1) in [v.signed for v in kept_before]
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    books.record_voucher(*kept(promise(1, on=500)), now=NOW)
    assert len(books.best_vouchers()) == len(kept_before) + 1


def test_a_database_somebody_else_holds_is_a_typed_error_in_time(store: Store, path: Path) -> None:
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 50")
    with Store.open(path) as other, other.transaction():
        began = time.monotonic()
        with pytest.raises(StoreError) as locked:
            NodeStore(store).record_voucher(*kept(promise(1)), now=NOW)
        assert time.monotonic() - began < 2
    assert locked.value.reason == "locked"
    assert NodeStore(store).record_voucher(*kept(promise(1)), now=NOW) == 1


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError) as refused:
        Store.open(path)
    assert refused.value.reason == "corrupt"
    assert path.read_bytes() == b"not a database at all" * 100


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as refused:
        Store.open(tmp_path / "file" / "books.db")
    assert refused.value.reason == "unavailable"


@pytest.mark.parametrize("url", ["mysql://u:p4ss@h/d", "nonsense://", "://", "sqlite+unknown://"])
def test_a_url_of_no_supported_database_is_a_typed_error_without_its_password(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        Store.open(url)
    assert "p4ss" not in str(refused.value)


def test_the_database_of_a_process_can_live_in_memory() -> None:
    with Store.open("sqlite://") as store:
        NodeStore(store).record_voucher(promise(3), LEAF, PROOF, now=NOW)
        NodeStore(store).mark_redeemed(tranche(1), PAYEE.address, Nectar(1))
        assert [v.due for v in NodeStore(store).best_vouchers()] == [2]


def test_opening_a_current_database_imports_no_alembic_and_is_quick(path: Path) -> None:
    Store.open(path).close()
    probe = textwrap.dedent(
        """
        import sys, time
        from corolla_core.store.store import Store
        began = time.process_time()
        Store.open(sys.argv[1]).close()
        print(time.process_time() - began, "alembic" in sys.modules)
        """
    )
    answer = subprocess.run([sys.executable, "-c", probe, str(path)], capture_output=True, text=True, check=True)
    seconds, imported = answer.stdout.split()
    assert imported == "False"
    assert float(seconds) < 0.3


@pytest.mark.anyio
async def test_a_cancelled_caller_does_not_cancel_the_write(store: Store) -> None:
    books = NodeStore(store)
    write = asyncio.create_task(store.run(books.record_voucher, *kept(promise(4)), now=NOW))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    assert [v.due for v in await store.run(books.best_vouchers)] == [4]
