"""What the client's store promises, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
from books import NOW, PAYEE, PAYER, tranche
from databases import database, postgres_server, store

from corolla_core.protocol.errors import (
    StoreError,
    TrancheUnknown,
    VoucherStale,
)
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.sumtree import Leaf
from corolla_core.protocol.units import MAX_UINT128, Nectar, UnixTime
from corolla_core.store.client_store import ClientStore
from corolla_core.store.records import ClientTranche
from corolla_core.store.store import Store

__all__ = ["database", "postgres_server", "store"]


def planned(number: int, nonce: int = 0) -> ClientTranche:
    leaves = (Leaf(PAYEE.address, Nectar(2**127)), Leaf(PAYER.address, Nectar(1)))
    return ClientTranche(tranche(number), PAYER.address, PAYER.address, nonce, leaves, UnixTime(NOW + 600))


def test_a_tranche_goes_from_planned_to_opened_to_closed(store: Store) -> None:
    books = ClientStore(store)
    books.record_tranche(planned(1, nonce=2**70))
    assert books.tranche(tranche(1)) == planned(1, nonce=2**70)
    books.mark_opened(tranche(1), Hash32(b"\x07" * 32))
    assert books.tranches(PAYER.address, open_only=True)[0].opened_tx == b"\x07" * 32
    books.mark_closed(tranche(1), now=NOW)
    assert books.tranches(open_only=True) == []
    assert books.tranches(PAYEE.address) == []
    assert [t.closed_at for t in books.tranches(PAYER.address)] == [NOW]


def test_a_plan_can_be_replaced_and_tranches_are_in_order_of_nonce(store: Store) -> None:
    books = ClientStore(store)
    for number, nonce in ((1, 10), (2, 9), (1, 11)):
        books.record_tranche(planned(number, nonce))
    assert [(t.tranche_id, t.nonce) for t in books.tranches()] == [(tranche(2), 9), (tranche(1), 11)]


def test_a_plan_never_replaces_an_open_tranche(store: Store) -> None:
    books = ClientStore(store)
    opened = replace(planned(1), opened_tx=Hash32(b"\x07" * 32))
    books.record_tranche(opened)
    with pytest.raises(StoreError):
        books.record_tranche(replace(planned(1), leaves=(Leaf(PAYEE.address, Nectar(77)),)))
    assert books.tranche(tranche(1)) == opened


def test_unknown_tranches_are_typed_errors(store: Store) -> None:
    books = ClientStore(store)
    with pytest.raises(TrancheUnknown):
        books.tranche(tranche(1))
    with pytest.raises(TrancheUnknown):
        books.mark_opened(tranche(1), Hash32(bytes(32)))


def test_a_signed_total_never_falls(store: Store, database: str) -> None:
    books = ClientStore(store)
    assert books.signed_total(tranche(1), PAYEE.address) == 0
    for total in (5, 5, MAX_UINT128):
        books.raise_signed_total(tranche(1), PAYEE.address, Nectar(total))
    with pytest.raises(VoucherStale):
        books.raise_signed_total(tranche(1), PAYEE.address, Nectar(MAX_UINT128 - 1))
    with Store.open(database) as again:
        assert ClientStore(again).signed_totals(tranche(1)) == {PAYEE.address: MAX_UINT128}


def test_promises_made_together_are_all_kept_or_none(store: Store) -> None:
    books = ClientStore(store)
    books.raise_signed_totals([(tranche(1), PAYEE.address, Nectar(5)), (tranche(1), PAYER.address, Nectar(6))])
    with pytest.raises(VoucherStale):
        books.raise_signed_totals([(tranche(1), PAYEE.address, Nectar(7)), (tranche(1), PAYER.address, Nectar(1))])
    assert books.signed_totals(tranche(1)) == {PAYEE.address: 5, PAYER.address: 6}
