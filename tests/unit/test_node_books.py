"""The node's books know where rows lie for as long as they do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from books import PAYER, receipt, session_id
from node_peers import MODEL, signer
from test_node_archive import rows

from corolla_core.protocol.errors import NonceReused
from corolla_core.store.store import Store
from corolla_node.archive import Archive
from corolla_node.bookkeeper import Batch
from corolla_node.books import Books

pytestmark = pytest.mark.anyio


async def test_places_and_nonces_are_kept_until_their_time_is_over(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "books.db") as store:
        now = time.time()
        books = Books(store, payee=signer("a").address, model_root=MODEL, clock=lambda: now)
        archive, signed = Archive(tmp_path / "rows", clock=time.time), receipt(t_out=int(now * 1000))
        place = archive.keep(rows(1))
        assert place is not None
        batch = Batch(receipts=[signed], places=[(rows(1).receipt, place)])
        await books.write(batch)
        await books.write(batch)
        await books.claim_nonce(b"n" * 32, session_id(1), PAYER.address)
        assert await books.last_place() == place
        for later, kept in ((100, True), (10_000, False)):
            now += later
            assert await books.forget_receipts(1000) == (0 if kept else 1)
            await books.forget_places(place.segment if kept else place.segment + 1)
            assert (await books.place(rows(1).receipt) == place) is kept
            if kept:
                with pytest.raises(NonceReused):
                    await books.claim_nonce(b"n" * 32, session_id(2), PAYER.address)
        await books.claim_nonce(b"n" * 32, session_id(2), PAYER.address)
