"""What the stores promise, the node's above all, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from alembic import command
from books import CAP, LEAF, NOW, PAYEE, PAYER, PROOF, kept, promise, receipt, session_id, tranche
from databases import database, fresh_postgres, postgres_server, store
from sqlalchemy import Connection, inspect, text

from corolla_core.protocol.errors import (
    InvalidInput,
    SessionUnknown,
    StoreError,
    VoucherOverCap,
    VoucherStale,
    VoucherWrongPayee,
)
from corolla_core.protocol.ids import ModelRoot
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf
from corolla_core.protocol.units import MAX_UINT128, Nectar, UnixTime
from corolla_core.store.client_store import ClientStore
from corolla_core.store.index_store import IndexStore
from corolla_core.store.migrate import alembic_config, current_version
from corolla_core.store.node_store import NodeStore
from corolla_core.store.records import SessionRecord
from corolla_core.store.schema import HEAD, earned_hours
from corolla_core.store.store import Store

__all__ = ["database", "postgres_server", "store"]


# ---- schema ----


def test_the_migrations_build_exactly_the_tables_the_code_uses(store: Store) -> None:
    with store.engine.begin() as connection:
        command.check(alembic_config(connection))  # raises when autogenerate would add anything


def test_the_schema_goes_down_and_up_again(store: Store) -> None:
    with store.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    with store.engine.begin() as connection:
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
        assert current_version(connection) is None
        command.upgrade(alembic_config(connection), "head")
    with store.engine.begin() as connection:
        assert current_version(connection) == HEAD
    assert NodeStore(store).record_voucher(*kept(promise(5)), now=NOW) == 5


def test_a_database_of_a_newer_program_is_refused_untouched(store: Store, database: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match="newer") as refused:
        Store.open(database)
    assert refused.value.reason == "schema"


def test_processes_that_open_a_fresh_database_at_once_migrate_it_once(database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: Store.open(database), range(4)))
    for opened in stores:
        with opened.engine.begin() as connection:
            assert current_version(connection) == HEAD
        opened.close()


# ---- vouchers ----


def test_a_kept_voucher_comes_back_whole(store: Store, database: str) -> None:
    signed = promise(MAX_UINT128 - 9, head=3)
    NodeStore(store).record_voucher(signed, LEAF, PROOF, now=NOW, expiry=UnixTime(NOW + 60))
    with Store.open(database) as again:
        (found,) = NodeStore(again).best_vouchers()
    assert (found.signed, found.leaf, found.proof) == (signed, LEAF, PROOF)
    assert (found.claimed, found.expiry, found.received_at) == (0, NOW + 60, NOW)


def test_a_voucher_says_how_much_it_adds(store: Store) -> None:
    books = NodeStore(store)
    assert [books.record_voucher(*kept(promise(n)), now=NOW) for n in (10, 25, 26)] == [10, 15, 1]


def test_the_same_voucher_twice_is_worth_nothing_more(store: Store) -> None:
    books = NodeStore(store)
    books.record_voucher(*kept(promise(10)), now=NOW)
    assert books.record_voucher(*kept(promise(10)), now=NOW) == 0
    assert books.earnings().earned == 10


@pytest.mark.parametrize("late", [promise(9), promise(10, head=1), promise(0)])
def test_a_stale_voucher_never_replaces_a_better_one(store: Store, late: object) -> None:
    books = NodeStore(store)
    books.record_voucher(*kept(promise(10)), now=NOW)
    with pytest.raises(VoucherStale) as stale:
        books.record_voucher(late, LEAF, PROOF, now=NOW)  # type: ignore[arg-type]
    assert stale.value.known == 10
    assert books.best_vouchers()[0].signed == promise(10)


def test_a_voucher_over_its_cap_or_for_another_payee_is_not_kept(store: Store) -> None:
    books = NodeStore(store)
    with pytest.raises(VoucherOverCap):
        books.record_voucher(promise(CAP + 1), LEAF, PROOF, now=NOW)
    with pytest.raises(VoucherWrongPayee):
        books.record_voucher(promise(1), Leaf(PAYER.address, CAP), PROOF, now=NOW)
    assert books.best_vouchers(unredeemed_only=False) == []


def test_vouchers_compare_as_numbers_not_as_text(store: Store) -> None:
    books = NodeStore(store)
    books.record_voucher(*kept(promise(9)), now=NOW)
    books.record_voucher(*kept(promise(10**20)), now=NOW)
    books.mark_redeemed(tranche(1), PAYEE.address, Nectar(9 * 10**18))
    assert [v.due for v in books.best_vouchers()] == [10**20 - 9 * 10**18]


def test_redeemed_vouchers_leave_the_list_until_a_better_one_comes(store: Store) -> None:
    books = NodeStore(store)
    books.record_voucher(*kept(promise(10)), now=NOW)
    books.mark_redeemed(tranche(1), PAYEE.address, Nectar(10))
    books.mark_redeemed(tranche(1), PAYEE.address, Nectar(4))
    assert books.best_vouchers() == []
    assert [v.claimed for v in books.best_vouchers(unredeemed_only=False)] == [10]
    books.record_voucher(*kept(promise(12)), now=NOW)
    assert [v.due for v in books.best_vouchers()] == [2]


def test_a_redemption_that_a_reorg_took_back_is_due_again(store: Store) -> None:
    books = NodeStore(store)
    books.record_voucher(*kept(promise(10)), now=NOW)
    books.mark_redeemed(tranche(1), PAYEE.address, Nectar(10))
    books.unmark_redeemed(tranche(1), PAYEE.address, Nectar(3))
    assert [v.due for v in books.best_vouchers()] == [7]


def test_the_voucher_that_expires_first_is_listed_first(store: Store) -> None:
    books = NodeStore(store)
    for number, expiry in ((1, None), (2, 300), (3, 100)):
        books.record_voucher(*kept(promise(1, on=number)), now=NOW, expiry=expiry and UnixTime(expiry))
    assert [v.signed.voucher.tranche_id for v in books.best_vouchers()] == [tranche(3), tranche(2), tranche(1)]


def test_writers_in_two_processes_leave_the_best_voucher(database: str) -> None:
    start = threading.Barrier(2)

    def write(offset: int) -> int:
        refused = 0
        with Store.open(database) as mine:
            start.wait()
            for n in range(1, 40):
                try:
                    NodeStore(mine).record_voucher(*kept(promise(2 * n + offset)), now=NOW)
                except VoucherStale:
                    refused += 1
        return refused

    Store.open(database).close()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (0, 1)))
    with Store.open(database) as after:
        assert NodeStore(after).best_vouchers()[0].signed == promise(79)
        assert NodeStore(after).earnings().earned == 79


# ---- charges, sessions, earnings ----


def test_charges_add_up_over_payees_and_never_fall(store: Store) -> None:
    books = NodeStore(store)
    books.record_charge(tranche(1), PAYEE.address, Nectar(MAX_UINT128 - 5))
    books.record_charge(tranche(1), PAYEE.address, Nectar(3))
    books.record_charge(tranche(1), PAYER.address, Nectar(5))
    assert books.charged(tranche(1), PAYEE.address) == MAX_UINT128 - 5
    assert books.charged(tranche(1)) == MAX_UINT128
    assert books.charged(tranche(2)) == 0


def opened(number: int, at: int = NOW) -> SessionRecord:
    return SessionRecord(
        session_id(number), PAYER.address, tranche(1), ModelRoot(b"\x05" * 32), Span(0, 10), UnixTime(at)
    )


def test_a_session_is_open_until_it_is_closed_once(store: Store) -> None:
    books = NodeStore(store)
    books.record_session(opened(1))
    books.record_session(replace(opened(2), tranche_id=None))
    books.close_session(session_id(1), now=UnixTime(NOW + 9), tokens=40, charged=Nectar(2**100), reason="x" * 500)
    books.close_session(session_id(1), now=UnixTime(NOW + 99), tokens=1, charged=Nectar(1))
    assert [s.session_id for s in books.sessions(open_only=True)] == [session_id(2)]
    (closed,) = [s for s in books.sessions() if s.session_id == session_id(1)]
    assert (closed.closed_at, closed.tokens, closed.charged, len(closed.reason)) == (NOW + 9, 40, 2**100, 200)


def test_unknown_and_repeated_sessions_are_typed_errors(store: Store) -> None:
    books = NodeStore(store)
    with pytest.raises(SessionUnknown):
        books.close_session(session_id(1), now=NOW, tokens=0, charged=Nectar(0))
    books.record_session(opened(1))
    with pytest.raises(InvalidInput):
        books.record_session(opened(1))


def test_earnings_count_from_the_hour_asked_for(store: Store) -> None:
    books = NodeStore(store)
    books.record_voucher(*kept(promise(10)), now=UnixTime(NOW - 7200))
    books.record_voucher(*kept(promise(2**100)), now=NOW)
    books.record_voucher(*kept(promise(30, on=2)), now=NOW)
    books.mark_redeemed(tranche(2), PAYEE.address, Nectar(20))
    for number, at in ((1, NOW - 7200), (2, NOW)):
        books.record_session(opened(number, at))
        books.close_session(session_id(number), now=UnixTime(at), tokens=8, charged=Nectar(1))
    recent, ever = books.earnings(NOW), books.earnings()
    assert (recent.earned, recent.sessions, recent.tokens) == (2**100 + 20, 1, 8)
    assert (ever.earned, ever.sessions, ever.tokens) == (2**100 + 30, 2, 16)
    assert (ever.redeemed, ever.unredeemed, ever.vouchers) == (20, 2**100 + 10, 2)


# ---- receipts ----


def test_receipts_come_back_whole_in_order_of_position(store: Store) -> None:
    books = NodeStore(store)
    first, second, other = receipt(), receipt(start=8), receipt(session=2)
    for each in (second, first, other, first):
        assert books.record_receipt(each) == PAYEE.address
    assert books.receipts(session_id(1)) == [first, second]
    assert books.receipts(session_id(1), signer=PAYER.address) == []


def test_a_receipt_with_the_largest_numbers_a_peer_can_send_is_kept_exactly(store: Store) -> None:
    largest = receipt(start=2**64 - 1, count=2**64 - 1, t_out=2**64 - 1)
    ClientStore(store).record_receipt(largest)
    assert ClientStore(store).receipts(session_id(1)) == [largest]


def test_receipts_older_than_the_audit_window_can_be_forgotten(store: Store) -> None:
    books = NodeStore(store)
    books.record_receipt(receipt(t_out=5_000))
    books.record_receipt(receipt(start=8, t_out=15_000))
    assert books.forget_receipts(before=UnixTime(10)) == 1
    assert [r.receipt.pos_start for r in books.receipts(session_id(1))] == [8]


# ---- the event index, and the async face ----


@pytest.mark.anyio
async def test_an_index_replaces_its_tail_in_one_step(store: Store) -> None:
    index, other = IndexStore(store, "a"), IndexStore(store, "b")
    blocks = [(n, bytes([n]) * 32, b"e%d" % n) for n in range(5)]
    await index.replace(above=-1, blocks=blocks)
    await other.replace(above=-1, blocks=blocks[:1])
    fork = [(3, b"\xf3" * 32, b"fork")]
    await index.replace(above=2, blocks=fork, forget=[0])
    assert await index.blocks() == [*blocks[1:3], *fork]
    assert await other.blocks() == blocks[:1]


@pytest.mark.anyio
async def test_calls_run_in_order_on_one_thread_off_the_loop(store: Store) -> None:
    books = NodeStore(store)
    for n in (1, 2, 3):
        assert await store.run(books.record_voucher, *kept(promise(n)), now=NOW) == 1
    threads = {await store.run(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_calls_made_together_are_kept_together_or_not_at_all(store: Store) -> None:
    books = NodeStore(store)
    with store.together():
        books.record_voucher(*kept(promise(5)), now=NOW)
        books.record_charge(tranche(1), PAYEE.address, Nectar(4))
        with pytest.raises(VoucherStale):
            books.record_voucher(*kept(promise(3)), now=NOW)
        books.record_session(opened(1))
        with pytest.raises(InvalidInput):
            books.record_session(opened(1))
        books.record_receipt(receipt())
        assert books.best_vouchers()[0].due == 5
    assert (books.earnings().earned, books.charged(tranche(1))) == (5, 4)
    assert (len(books.sessions()), len(books.receipts(session_id(1)))) == (1, 1)


def test_calls_made_together_are_undone_together(store: Store) -> None:
    books, promises = NodeStore(store), ClientStore(store)
    books.record_voucher(*kept(promise(5)), now=NOW)

    def half_good() -> None:
        with store.together():
            books.record_charge(tranche(1), PAYEE.address, Nectar(9))
            promises.raise_signed_totals([(tranche(1), PAYEE.address, Nectar(5))])
            books.record_voucher(*kept(promise(2)), now=NOW)

    with pytest.raises(VoucherStale):
        half_good()
    assert (books.charged(tranche(1)), promises.signed_totals(tranche(1))) == (0, {})


def test_a_failed_transaction_leaves_nothing_of_itself(store: Store) -> None:
    def half_good(connection: Connection) -> None:
        connection.execute(earned_hours.insert().values(hour=1, earned=1))
        connection.execute(earned_hours.insert().values(hour=2, earned=-1))

    with pytest.raises(InvalidInput):
        store.atomically(half_good)
    assert NodeStore(store).earnings().earned == 0


@pytest.mark.parametrize("number", [2**63, 2**200])
def test_a_number_too_large_for_its_column_is_a_typed_error(store: Store, number: int) -> None:
    with pytest.raises(StoreError) as refused:
        NodeStore(store).record_voucher(*kept(promise(1)), now=NOW, expiry=UnixTime(number))
    assert refused.value.reason == "invalid"


def test_a_lost_connection_is_a_typed_error_and_the_next_call_works(postgres_server: str) -> None:
    with Store.open(fresh_postgres(postgres_server)) as books:
        NodeStore(books).record_voucher(*kept(promise(1)), now=NOW)

        def cut_off(connection: Connection) -> None:
            backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with psycopg.connect(postgres_server, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [backend])
            connection.execute(text("DELETE FROM vouchers"))

        with pytest.raises(StoreError) as lost:
            books.atomically(cut_off)
        assert lost.value.reason == "unavailable"
        assert NodeStore(books).record_voucher(*kept(promise(3)), now=NOW) == 2


def test_an_unreachable_server_is_a_typed_error() -> None:
    with pytest.raises(StoreError) as refused:
        Store.open("postgresql://postgres:hunter2@127.0.0.1:1/none")
    assert refused.value.reason == "unavailable"
    assert "hunter2" not in str(refused.value)
