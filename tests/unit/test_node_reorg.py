"""What a node's books do when the chain takes a redemption back, and what they need not keep for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from node_peers import until

from corolla_core.protocol.ids import ZERO_HASH, Address, ModelRoot, TrancheId
from corolla_core.protocol.sumtree import Leaf, SumProof
from corolla_core.protocol.units import Nectar, UnixTime, Wei
from corolla_core.protocol.voucher import SignedVoucher, Voucher
from corolla_core.store.records import KeptVoucher
from corolla_core.store.store import Store
from corolla_node.bookkeeper import Batch, Bookkeeper, VoucherEntry
from corolla_node.books import Books
from corolla_node.redeemer import MAX_CHECKED, Redeemer, Thrift

pytestmark = pytest.mark.anyio
ME = Address("0x" + "11" * 20)
NOW = 1_800_000_000
GRACE = 600


@dataclass
class Chain:
    """An escrow whose last blocks can be undone."""

    paid: dict[TrancheId, int] = field(default_factory=dict)
    asked: list[TrancheId] = field(default_factory=list)

    async def gas_price(self) -> Wei:
        return Wei(0)

    async def claimed(self, tranche_id: TrancheId, payee: Address) -> Nectar:
        self.asked.append(tranche_id)
        return Nectar(self.paid.get(tranche_id, 0))

    async def redeem(self, vouchers: Sequence[KeptVoucher]) -> None:
        for kept in vouchers:
            self.paid[kept.signed.voucher.tranche_id] = kept.signed.voucher.cumulative


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    with Store.open(tmp_path / "books.db") as store:
        yield Books(store, payee=ME, model_root=ModelRoot(b"m" * 32), clock=lambda: float(NOW))


def tranche(number: int) -> TrancheId:
    return TrancheId(number.to_bytes(32, "big"))


def voucher(number: int, cumulative: int, *, expiry: int = NOW + 3600) -> Batch:
    signed = SignedVoucher(Voucher(tranche(number), ME, Nectar(cumulative), ZERO_HASH), b"\x01" * 65)
    entry = VoucherEntry(signed, Leaf(ME, Nectar(10**6)), SumProof(0, ()), UnixTime(expiry))
    return Batch(vouchers={tranche(number): entry})


def redeemer(chain: Chain, books: Books) -> Redeemer:
    return Redeemer(chain, books, clock=lambda: float(NOW), thrift=Thrift(gas_value=0), grace=GRACE)


async def test_a_redemption_that_a_reorg_dropped_is_redeemed_again(books: Books) -> None:
    chain = Chain()
    await books.write(voucher(1, 70))
    await books.write(voucher(2, 30))
    first = redeemer(chain, books)
    assert await first.redeem() == 100
    del chain.paid[tranche(1)]
    assert await redeemer(chain, books).redeem() == 0
    after_restart = redeemer(chain, books)
    assert await after_restart.recheck() == 70
    assert await after_restart.redeem() == 70
    assert chain.paid == {tranche(1): 70, tranche(2): 30}
    assert await after_restart.recheck() == 0


async def test_a_running_redeemer_rechecks_by_itself(books: Books) -> None:
    chain = Chain()
    await books.write(voucher(1, 70))
    running = Redeemer(chain, books, clock=lambda: float(NOW), thrift=Thrift(gas_value=0), interval=0.01, grace=GRACE)
    task = asyncio.create_task(running.run())
    try:
        for _ in range(3):
            await until(lambda: tranche(1) in chain.paid)
            del chain.paid[tranche(1)]
    finally:
        task.cancel()


async def test_what_can_no_longer_be_redeemed_is_not_asked_for(books: Books) -> None:
    chain = Chain()
    await books.write(voucher(1, 70, expiry=NOW - GRACE - 1))
    await books.write(voucher(2, 70, expiry=NOW - GRACE))
    for number in (1, 2):
        await books.redeemed(tranche(number), ME, Nectar(70))
    assert await redeemer(chain, books).recheck() == 70
    assert chain.asked == [tranche(2)]


async def test_many_redemptions_are_rechecked_in_turns(books: Books) -> None:
    chain, count = Chain(), MAX_CHECKED + 5
    batch = Batch()
    for number in range(count):
        batch = batch.before(voucher(number, 1))
    await books.write(batch)
    await (one := redeemer(chain, books)).redeem()
    for expected in (MAX_CHECKED, 5, MAX_CHECKED):
        chain.asked.clear()
        await one.recheck()
        assert len(chain.asked) == expected


async def test_the_bookkeeper_tidies_at_the_start_and_then_by_the_clock_whatever_goes_wrong() -> None:
    tidied = 0

    async def write(batch: Batch) -> None:
        pass

    async def tidy() -> None:
        nonlocal tidied
        tidied += 1
        raise OSError("disk")

    bookkeeper = Bookkeeper(write, tidy=tidy, tidy_interval=0.05)
    task = asyncio.create_task(bookkeeper.run())
    async with asyncio.timeout(5):
        while tidied < 2:
            bookkeeper.saved(lambda: None)
            await asyncio.sleep(0.02)
    await bookkeeper.stop()
    await task

    rarely = Bookkeeper(write, tidy=tidy)
    task, before = asyncio.create_task(rarely.run()), tidied
    for _ in range(10):
        rarely.saved(lambda: None)
        await asyncio.sleep(0.01)
    await rarely.stop()
    await task
    assert tidied == before + 1
