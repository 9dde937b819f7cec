"""Openings demanded on a real chain: an honest node loses nothing to anybody, a silent one pays its challenger."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_chain_faults import LEAVES, PARAMETERS, ROWS, SESSION, STAKE, World, X, network, world

from corolla_core.chain.faults import ChallengeState, Side
from corolla_core.chain.registry import Registry
from corolla_core.chain.token import Token
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import TransactionReverted
from corolla_core.protocol.ids import Hash32, TrancheId
from corolla_core.protocol.merkle import merkle_root
from corolla_core.protocol.opening import MAX_ROW_BYTES
from corolla_core.protocol.receipt import Receipt, SignedReceipt, rows_root
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import Nectar
from corolla_core.store.challenges import ChallengeBook, Demanded
from corolla_core.store.kept_rows import Place
from corolla_core.store.store import Store
from corolla_node.archive import Archive, ArchivedRows
from corolla_node.onchain import FaultsDocket
from corolla_node.opener import Opener
from corolla_validator.bar import Bar
from corolla_validator.config import ValidatorSettings
from corolla_validator.payments import Payments

__all__ = ["network", "world"]
pytestmark = pytest.mark.anyio
MANIFEST = Manifest("model", config_root=X, front_root=X, block_roots=(X,), head_root=X)


class Desk:
    """A node's disk and its opener."""

    def __init__(self, world: World, node: Signer, folder: Path) -> None:
        self.archive = Archive(folder, clock=time.time)
        self.places: dict[Hash32, Place] = {}
        docket = FaultsDocket(world.chain, world.faults(node), node.address)
        self.opener = Opener(docket, self.archive, self._find, interval=0.1)

    async def _find(self, receipt: Hash32) -> Place | None:
        return self.places.get(receipt)

    def keep(self, receipt: Receipt, inputs: Sequence[bytes], outputs: Sequence[bytes]) -> None:
        rows = ArchivedRows(receipt.hash(), SESSION, receipt.pos_start, "float32", 1, tuple(inputs), tuple(outputs))
        place = self.archive.keep(rows)
        assert place is not None
        self.places[receipt.hash()] = place


async def test_a_stranger_who_challenges_an_honest_node_loses_the_bond_to_it(world: World, tmp_path: Path) -> None:
    node, stranger = await world.node(10), world.challenger
    desk = Desk(world, node, tmp_path)
    receipt = replace(await world.receipt(), out_root=merkle_root(LEAVES))
    desk.keep(receipt, ROWS, ROWS)
    tranche = await world.paid(node, receipt)
    await world.mint(stranger, Nectar(7 * 4))
    faults, signed = world.faults(stranger), receipt.sign(node)
    first = [await faults.challenge_opening(signed, at, Side.INPUT, tranche=tranche) for at in (0, 4)]
    await desk.opener.turn()
    # Another turn of the same attack, on a node that was restarted.
    second = [await faults.challenge_opening(signed, at, Side.OUTPUT, tranche=tranche) for at in (1, 3)]
    again = Desk(world, node, tmp_path)
    again.places = desk.places
    await again.opener.turn()
    assert (desk.opener.answered, again.opener.answered) == (2, 2)
    assert {(await faults.opening(each)).state for each in first + second} == {ChallengeState.ANSWERED}
    assert await Token(world.chain).balance_of(node.address) == 7 * 4
    world.ganache.advance(PARAMETERS.response_time + 5)
    with pytest.raises(TransactionReverted):
        await faults.expire_opening(first[0])
    record = await Registry(world.chain).node(node.address)
    assert (record.stake, record.jailed_until, record.active) == (STAKE, 0, True)


async def test_the_largest_row_a_node_serves_can_be_opened(world: World, tmp_path: Path) -> None:
    node = await world.node(11)
    desk = Desk(world, node, tmp_path)
    rows = [bytes([at]) * MAX_ROW_BYTES for at in (1, 2, 3)]
    root = rows_root(SESSION, 0, rows)
    receipt = replace(await world.receipt(), n_pos=3, in_root=root, out_root=root)
    desk.keep(receipt, rows, rows)
    tranche = await world.paid(node, receipt)
    await world.mint(world.challenger, Nectar(7))
    faults = world.faults(world.challenger)
    challenge = await faults.challenge_opening(receipt.sign(node), 2, Side.OUTPUT, tranche=tranche)
    await desk.opener.turn()
    assert (await faults.opening(challenge)).state is ChallengeState.ANSWERED


class Bench:
    """A validator before the contracts, with books that outlive it."""

    def __init__(self, world: World, store: Store) -> None:
        self.world = world
        self.store = store
        self.book = ChallengeBook(store)
        self.payments = Payments(world.chain)
        self.events: list[dict[str, object]] = []
        self.bar = self.restart()

    def restart(self) -> Bar:
        world = self.world
        self.bar = Bar(
            world.chain, world.challenger, self.store, ValidatorSettings(), MANIFEST, tell=self.events.append
        )
        return self.bar

    def demand(self, chain: tuple[SignedReceipt, ...]) -> None:
        assert self.bar.court is not None
        self.bar.court.demand(chain)


@pytest.fixture
async def bench(world: World, tmp_path: Path) -> AsyncIterator[Bench]:
    async with Store.open(tmp_path / "validator.db") as store:
        yield Bench(world, store)


async def signed_chain(world: World, node: Signer) -> tuple[SignedReceipt, ...]:
    first = replace(await world.receipt(), out_root=merkle_root(LEAVES))
    second = replace(first, pos_start=5, prev_receipt_hash=first.hash())
    third = replace(first, pos_start=10, prev_receipt_hash=second.hash())
    return tuple(each.sign(node) for each in (first, second, third))


async def test_a_validator_gets_its_bond_and_a_reward_from_a_node_that_stays_silent(bench: Bench) -> None:
    world = bench.world
    node = await world.node(12)
    chain = await signed_chain(world, node)
    await world.paid(node, chain[1].receipt)
    await world.mint(world.challenger, Nectar(7))
    purse = await Token(world.chain).balance_of(world.challenger.address)
    bench.demand(chain)
    await bench.bar.round()
    world.ganache.advance(PARAMETERS.response_time + 5)
    bench.restart()
    await bench.bar.round()
    assert [event["event"] for event in bench.events] == ["challenged", "punished"]
    taken = STAKE * 5 // 100
    assert await world.stake_of(node) == STAKE - taken
    assert await Token(world.chain).balance_of(world.challenger.address) == purse + taken * 3 // 10
    await bench.bar.round()
    assert len(bench.events) == 2


async def test_a_validator_that_was_answered_on_chain_remembers_that(bench: Bench, tmp_path: Path) -> None:
    world = bench.world
    node = await world.node(13)
    desk = Desk(world, node, tmp_path / "rows")
    chain = await signed_chain(world, node)
    receipt = chain[0].receipt
    desk.keep(receipt, ROWS, ROWS)
    await world.paid(node, receipt)
    await world.mint(world.challenger, Nectar(7))
    bench.demand(chain)
    await bench.bar.round()
    await desk.opener.turn()
    assert not [record for record in bench.book.of_node(node.address) if record.state is Demanded.OPENED]
    await bench.bar.round()
    assert [event["event"] for event in bench.events] == ["challenged", "opened"]
    assert [record.state for record in bench.book.of_node(node.address)] == [Demanded.OPENED]
    assert await world.stake_of(node) == STAKE


async def test_only_what_the_last_redemption_on_a_tranche_says_leads_to_a_session(bench: Bench) -> None:
    world = bench.world
    node = await world.node(14)
    chain = await signed_chain(world, node)
    hashes = [signed.receipt.hash() for signed in chain]
    assert await bench.payments.head_of(node.address, hashes) is None
    tranche: TrancheId = await world.paid(node, chain[1].receipt)
    assert await bench.payments.head_of(node.address, hashes) == (tranche, hashes[1])
    assert await bench.payments.head_of(node.address, hashes[:1]) is None
    assert await bench.payments.head_of(world.payer.address, hashes) is None
