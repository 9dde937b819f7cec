"""What nodes were paid is read once, after it cannot be taken back, and on from where the books end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from books import PAYEE, receipt, session_id, tranche
from eth_abi.abi import encode
from simchain import LOGGER, SimChain, network

from corolla_core.chain.abi import load_abi
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.signature import Signer
from corolla_core.store.fee_store import SessionFees
from corolla_core.store.receipts import ReceiptLog
from corolla_core.store.store import Store
from corolla_validator.fees import Fees

pytestmark = pytest.mark.anyio
SENDER = Signer(b"\x21" * 32)
REDEEMED = load_abi("Escrow").topic("Redeemed")
DEEP = 12


class World:
    """A chain that is no devnet, and a validator's books with one receipt in them."""

    def __init__(self, store: Store) -> None:
        self.sim, self.store = SimChain(), store
        signed = receipt(session=1)
        ReceiptLog(store).record_receipt(signed)
        self.head = signed.receipt.hash()
        self.asked: list[str] = []
        self.sim.before = self.asked.append
        self.fees = self.started()

    def started(self) -> Fees:
        return Fees(Chain(network(), transport=self.sim, clock=self.sim.clock()), self.store)

    def redeem(self, cumulative: int, amount: int) -> None:
        topics = [REDEEMED, tranche(1), encode(["address"], [PAYEE.address])]
        figures = encode(["uint256", "uint256", "uint256", "bytes32"], [amount, amount // 100, cumulative, self.head])
        data = bytes([len(topics)]) + b"".join(topics) + figures
        nonce = int(self.sim.eth_getTransactionCount(SENDER.address, "pending"), 16)
        self.sim.intrude(SENDER, nonce, data, max_fee=self.sim.base_fee * 2, tip=self.sim.base_fee, to=LOGGER)
        self.sim.mine()

    def pass_blocks(self, count: int) -> None:
        for _ in range(count):
            self.sim.mine(empty=True)

    async def paid(self) -> tuple[int, int]:
        found = (await self.fees.read()).get((PAYEE.address, session_id(1)), SessionFees(0, 0))  # type: ignore[arg-type]
        return found.amount, found.burned


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Store.open(tmp_path / "books.db") as store:
        yield World(store)


async def test_a_redemption_counts_once_it_cannot_be_taken_back(world: World) -> None:
    world.redeem(500, 500)
    world.pass_blocks(DEEP - 1)
    assert await world.paid() == (0, 0)
    world.pass_blocks(1)
    assert await world.paid() == await world.paid() == (500, 5)


async def test_a_redemption_that_a_reorg_undid_never_counted(world: World) -> None:
    world.redeem(500, 500)
    world.pass_blocks(DEEP - 1)
    await world.paid()
    world.sim.reorganise(DEEP, keep=False)
    world.pass_blocks(3 * DEEP)
    assert await world.paid() == (0, 0)


async def test_a_restart_reads_on_from_the_books(world: World) -> None:
    world.redeem(500, 500)
    world.pass_blocks(DEEP)
    assert await world.paid() == (500, 5)
    world.fees = world.started()
    world.redeem(800, 300)
    world.pass_blocks(DEEP)
    assert await world.paid() == (800, 8)


async def test_an_outage_between_ranges_loses_nothing(world: World) -> None:
    world.redeem(500, 500)
    world.pass_blocks(2_500)
    world.redeem(800, 300)
    world.pass_blocks(DEEP)

    def fails_late(method: str) -> None:
        world.asked.append(method)
        if world.asked.count("eth_getLogs") > 1:
            raise ConnectionError("down")

    world.asked.clear()
    world.sim.before = fails_late
    with pytest.raises(ChainUnreachable):
        await world.paid()
    world.sim.before = world.asked.append
    world.asked.clear()
    assert await world.paid() == (800, 8)
    assert world.asked.count("eth_getLogs") == 1
