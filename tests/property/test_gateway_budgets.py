"""No key ever spends more than its budget, and no request is charged twice or forgotten, whatever runs at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import fresh_postgres, postgres_server
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from corolla.gateway.keys import new_key
from corolla.gateway.ledger import Ledger
from corolla_core.protocol.errors import BudgetSpent, KeyRefused
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.gateway_store import DAY_SECONDS, ApiKey, GatewayStore
from corolla_core.store.store import Store

__all__ = ["postgres_server"]

NOW = UnixTime(20_000 * DAY_SECONDS)
BUDGET = 100
OWNERS = (b"\x01" * 32, b"\x02" * 32)


def a_key(label: str, *, daily: bool = False, budget: int | None = BUDGET) -> ApiKey:
    return new_key(label, now=NOW, budget=None if budget is None else Nectar(budget), daily=daily).key


class Model:
    """What one key spent and reserved: the charges, and amounts by reservation."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self.charges: list[tuple[int, int]] = []
        self.held: dict[bytes, tuple[int, int, bytes]] = {}

    def period(self, now: int) -> int:
        return max([now // DAY_SECONDS, *(p for p, _ in self.charges)]) if self.key.daily else 0

    def left(self, now: int) -> int:
        period = self.period(now)
        spent = sum(charge for p, charge in self.charges if p == period)
        return BUDGET - spent - sum(amount for p, amount, _ in self.held.values() if p == period)


class Budgets(RuleBasedStateMachine):
    """Two gateways that share a database, one key for all time and one by the day, and a clock that also goes back."""

    reservations: Bundle[tuple[int, bytes]] = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self.store = Store.open("sqlite://")
        self.books = GatewayStore(self.store)
        self.models = [Model(a_key("ever")), Model(a_key("daily", daily=True))]
        for model in self.models:
            self.books.add(model.key)
        self.now = int(NOW)
        self.count = 0

    def teardown(self) -> None:
        self.store.close()

    @rule(hours=st.integers(-30, 30))
    def time_passes(self, hours: int) -> None:
        self.now += 3600 * hours

    @rule(
        target=reservations, which=st.integers(0, 1), amount=st.integers(0, BUDGET + 5), owner=st.sampled_from(OWNERS)
    )
    def reserve(self, which: int, amount: int, owner: bytes) -> tuple[int, bytes]:
        model, self.count = self.models[which], self.count + 1
        name, left = self.count.to_bytes(16, "big"), model.left(self.now)
        if amount > left:
            with pytest.raises(BudgetSpent) as refused:
                self.books.reserve(name, model.key.key_hash, Nectar(amount), owner=owner, now=UnixTime(self.now))
            assert refused.value.available == left
        else:
            self.books.reserve(name, model.key.key_hash, Nectar(amount), owner=owner, now=UnixTime(self.now))
            model.held[name] = (model.period(self.now), amount, owner)
        return which, name

    @rule(reservation=reservations, cost=st.integers(0, 2 * BUDGET))
    def settle_and_perhaps_again(self, reservation: tuple[int, bytes], cost: int) -> None:
        which, name = reservation
        held = self.models[which].held.pop(name, None)
        if held is None:
            assert self.books.settle(name, cost) == 0
        else:
            period, amount, _ = held
            assert self.books.settle(name, cost) == min(cost, amount)
            self.models[which].charges.append((period, min(cost, amount)))

    @rule(reservation=consumes(reservations))
    def forget_one(self, reservation: tuple[int, bytes]) -> None:
        """A gateway that is killed never settles this one."""

    @rule(owner=st.sampled_from(OWNERS))
    def a_gateway_dies_and_is_cleaned_up_after(self, owner: bytes) -> None:
        gone = [(model, name) for model in self.models for name, held in model.held.items() if held[2] == owner]
        assert self.books.release([owner]) == len(gone)
        for model, name in gone:
            del model.held[name]

    @invariant()
    def books_and_model_agree_and_no_budget_is_passed(self) -> None:
        for key, reserved in self.books.listed():
            model = next(m for m in self.models if m.key.label == key.label)
            assert reserved == sum(amount for _, amount, _ in model.held.values())
            assert key.spent_ever == sum(charge for _, charge in model.charges)
            for period in {p for p, _ in model.charges}:
                assert sum(charge for p, charge in model.charges if p == period) <= BUDGET
        assert self.books.owners() == {owner for m in self.models for _, _, owner in m.held.values()}


Budgets.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestBudgets = Budgets.TestCase


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'books.db'}"
    else:
        yield fresh_postgres(request.getfixturevalue("postgres_server"))


def test_requests_at_once_through_several_gateways_never_pass_the_budget_together(url: str) -> None:
    key = a_key("shared")
    with Store.open(url) as one, Store.open(url) as other:
        GatewayStore(one).add(key)

        def spend(number: int) -> int:
            books = GatewayStore(one if number % 2 else other)
            name = number.to_bytes(16, "big")
            try:
                books.reserve(name, key.key_hash, Nectar(7), owner=OWNERS[number % 2], now=NOW)
            except BudgetSpent:
                return 0
            return sum((books.settle(name, 5), books.settle(name, 5)))

        with ThreadPoolExecutor(at_once := 8) as pool:
            charged = list(pool.map(spend, range(60)))
        ((after, reserved),) = GatewayStore(one).listed()
    assert reserved == 0
    assert after.spent_ever == sum(charged) <= BUDGET
    assert set(charged) == {0, 5}
    # The last to be refused may have met reservations of all others, which then cost less.
    assert BUDGET - after.spent_ever < at_once * 7


def _reserve_and_be_killed(url: str, folder: Path, secret: str, ready: multiprocessing.synchronize.Event) -> None:
    async def main() -> None:
        async with Store.open(url) as store, Ledger(store, leases=folder) as ledger:
            key = await ledger.authenticate(secret)
            async with ledger.billed(key, Nectar(60)):
                ready.set()
                await asyncio.sleep(60)

    asyncio.run(main())


def test_what_a_killed_gateway_reserved_is_released_when_the_next_one_starts() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, url = Path(name), f"sqlite:///{name}/books.db"
        made = new_key("mine", now=NOW, budget=Nectar(BUDGET))
        context = multiprocessing.get_context("spawn")
        ready = context.Event()
        with Store.open(url) as store:
            books = GatewayStore(store)
            books.add(made.key)
            victim = context.Process(target=_reserve_and_be_killed, args=(url, folder / "leases", made.secret, ready))
            victim.start()
            assert ready.wait(60)

            async def start() -> None:
                async with Ledger(store, leases=folder / "leases"):
                    pass

            asyncio.run(start())
            assert books.listed()[0][1] == 60, "a gateway that lives keeps its reservations"
            victim.kill()
            victim.join()
            asyncio.run(start())
            ((key, reserved),) = books.listed()
            assert (reserved, key.spent_ever) == (0, 0)
            assert list((folder / "leases").iterdir()) == []


class Boom(Exception):
    pass


def test_a_request_that_fails_or_is_cancelled_pays_for_what_it_had_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        with Store.open(tmp_path / "books.db") as store:
            made = new_key("mine", now=NOW, budget=Nectar(BUDGET))
            books = GatewayStore(store)
            books.add(made.key)
            async with Ledger(store, leases=tmp_path, clock=lambda: NOW) as ledger:
                key = await ledger.authenticate(made.secret)

                async def ask(cost: int, end: BaseException | None) -> None:
                    async with ledger.billed(key, Nectar(30)) as bill:
                        bill.cost = Nectar(cost)
                        await asyncio.sleep(0)
                        if end is not None:
                            raise end

                await ask(10, None)
                with pytest.raises(Boom):
                    await ask(3, Boom())
                cancelled = asyncio.create_task(ask(4, asyncio.CancelledError()))
                await asyncio.wait([cancelled])
                # Cancelled while the books are being asked: what may have been reserved is given back.
                waiting = asyncio.create_task(ask(0, None))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                ((after, reserved),) = books.listed()
                assert (after.spent_ever, reserved) == (17, 0)
                await ask(99, None)  # more than was reserved: the gateway bears the rest
                assert books.listed()[0][0].spent_ever == 47

    asyncio.run(main())


def test_a_key_that_is_wrong_revoked_or_expired_opens_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "books.db") as store:
        books = GatewayStore(store)
        made = new_key("short", now=NOW, expires_at=UnixTime(NOW + 10))
        books.add(made.key)
        assert books.find(made.key.key_hash, now=UnixTime(NOW + 9)) == made.key
        with pytest.raises(KeyRefused, match="expired"):
            books.find(made.key.key_hash, now=UnixTime(NOW + 10))
        books.revoke("short", now=NOW)
        with pytest.raises(KeyRefused, match="revoked"):
            books.find(made.key.key_hash, now=NOW)
        with pytest.raises(KeyRefused, match="revoked"):
            books.reserve(bytes(16), made.key.key_hash, Nectar(0), owner=OWNERS[0], now=NOW)
        with pytest.raises(KeyRefused, match="no such"):
            books.find(a_key("never added").key_hash, now=NOW)
