"""Money in the database is exact and only grows, in whatever order vouchers come."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from books import CAP, LEAF, PAYEE, PAYER, PROOF, promise, tranche
from databases import fresh_postgres, postgres_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from corolla_core.protocol.errors import VoucherOverCap, VoucherStale
from corolla_core.protocol.units import MAX_UINT128, Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher
from corolla_core.store.client_store import ClientStore
from corolla_core.store.node_store import NodeStore
from corolla_core.store.schema import earned_hours
from corolla_core.store.store import Store

__all__ = ["postgres_server"]

amounts = st.one_of(st.integers(0, MAX_UINT128), st.integers(0, 40).map(lambda bits: 2**128 - 1 - bits))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    url = (
        str(tmp_path_factory.mktemp("books") / "books.db")
        if request.param == "sqlite"
        else fresh_postgres(request.getfixturevalue("postgres_server"))
    )
    with Store.open(url) as opened:
        yield opened


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(amounts, min_size=1, max_size=6, unique=True))
def test_amounts_come_back_exact_and_order_as_integers(store: Store, values: list[int]) -> None:
    with store.transaction() as connection:
        connection.execute(earned_hours.delete())
        connection.execute(earned_hours.insert(), [{"hour": i, "earned": v} for i, v in enumerate(values)])
        ordered = list(connection.execute(select(earned_hours.c.earned).order_by(earned_hours.c.earned)).scalars())
        above = select(earned_hours.c.earned).where(earned_hours.c.earned > values[0])
        assert ordered == sorted(values)
        assert sorted(connection.execute(above).scalars()) == sorted(v for v in values if v > values[0])


class Books(RuleBasedStateMachine):
    """A node's and a client's books against plain dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "books.db"
        self.store = Store.open(self.path)
        self.best: dict[int, int] = {}
        self.claimed: dict[int, int] = {}
        self.charged: dict[int, int] = {}
        self.signed: dict[int, int] = {}

    tranches = st.integers(1, 3)

    @rule(on=tranches, cumulative=amounts)
    def voucher(self, on: int, cumulative: int) -> None:
        signed = promise(cumulative, on=on)
        known = self.best.get(on)
        if cumulative > CAP:
            with pytest.raises(VoucherOverCap):
                self._keep(signed)
        elif known is not None and cumulative < known:
            with pytest.raises(VoucherStale):
                self._keep(signed)
        else:
            assert self._keep(signed) == cumulative - (known or 0)
            self.best[on] = cumulative

    @rule(on=tranches, claimed=amounts)
    def redeemed(self, on: int, claimed: int) -> None:
        NodeStore(self.store).mark_redeemed(tranche(on), PAYEE.address, Nectar(claimed))
        if on in self.best:
            self.claimed[on] = max(claimed, self.claimed.get(on, 0))

    @rule(on=tranches, charged=amounts)
    def charge(self, on: int, charged: int) -> None:
        NodeStore(self.store).record_charge(tranche(on), PAYEE.address, Nectar(charged))
        self.charged[on] = max(charged, self.charged.get(on, 0))

    @rule(on=tranches, total=amounts)
    def sign(self, on: int, total: int) -> None:
        books = ClientStore(self.store)
        if total < self.signed.get(on, 0):
            with pytest.raises(VoucherStale):
                books.raise_signed_total(tranche(on), PAYER.address, Nectar(total))
        else:
            books.raise_signed_total(tranche(on), PAYER.address, Nectar(total))
            self.signed[on] = total

    @precondition(lambda self: self.best)
    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.path)

    @invariant()
    def the_books_agree(self) -> None:
        node, client = NodeStore(self.store), ClientStore(self.store)
        kept = {v.signed.voucher.tranche_id: v for v in node.best_vouchers(unredeemed_only=False)}
        assert {k: v.signed.voucher.cumulative for k, v in kept.items()} == {
            tranche(k): v for k, v in self.best.items()
        }
        assert {k: v.claimed for k, v in kept.items() if v.claimed} == {
            tranche(k): v for k, v in self.claimed.items() if v
        }
        assert {v.signed.voucher.tranche_id for v in node.best_vouchers()} == {
            tranche(k) for k, v in self.best.items() if v > self.claimed.get(k, 0)
        }
        assert node.earnings().earned == min(sum(self.best.values()), MAX_UINT128)
        for on in (1, 2, 3):
            assert node.charged(tranche(on)) == self.charged.get(on, 0)
            assert client.signed_total(tranche(on), PAYER.address) == self.signed.get(on, 0)

    def _keep(self, signed: SignedVoucher) -> Nectar:
        return NodeStore(self.store).record_voucher(signed, LEAF, PROOF, now=UnixTime(0))

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)


@settings(max_examples=5, deadline=None)
@given(totals=st.permutations(list(range(1, 13))))
def test_vouchers_sent_at_once_in_any_order_leave_the_best(totals: list[int]) -> None:
    async def all_at_once(books: NodeStore, store: Store) -> None:
        writes = (store.run(books.record_voucher, promise(n), LEAF, PROOF, now=UnixTime(0)) for n in totals)
        await asyncio.gather(*writes, return_exceptions=True)

    with Store.open("sqlite://") as store:
        asyncio.run(all_at_once(NodeStore(store), store))
        assert [v.due for v in NodeStore(store).best_vouchers()] == [12]
        assert NodeStore(store).earnings().earned == 12
