"""Whatever the chain takes back, an index ends where a fresh one would begin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from uuid import uuid4

import msgspec
import pytest
from books import PAYEE
from eth_abi.abi import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from simchain import LOGGER, OTHER, SimChain, network

from corolla_core.chain.abi import load_abi
from corolla_core.chain.events import Deposited
from corolla_core.chain.indexer import Indexed, Indexer, Update
from corolla_core.chain.rpc import Chain
from corolla_core.chain.state import NetworkState, fold
from corolla_core.protocol.ids import ZERO_HASH
from corolla_core.protocol.signature import Signer
from corolla_core.store.index_store import IndexStore
from corolla_core.store.store import Store

SENDER = Signer(b"\x21" * 32)
DEPOSITED = load_abi("Escrow").topic("Deposited")
SCORE_SETTLED = load_abi("ReputationOracle").topic("ScoreSettled")


class History:
    """A chain of deposits, told what to do by a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.sim = SimChain()
        self.sent = 0

    def deposit(self) -> None:
        account = self.rng.choice([PAYEE.address, SENDER.address])
        topics = [DEPOSITED, encode(["address"], [account]), encode(["address"], [OTHER])]
        self.log(topics, encode(["uint256"], [self.rng.randint(1, 2**100)]))

    def log(self, topics: list[bytes], data: bytes) -> None:
        data = bytes([len(topics)]) + b"".join(topics) + data
        nonce = int(self.sim.eth_getTransactionCount(SENDER.address, "pending"), 16)
        fee = self.sim.base_fee * 2
        self.sim.intrude(SENDER, nonce, data, max_fee=fee, tip=fee // 2, to=LOGGER)
        self.sent += 1

    def score(self) -> None:
        node = self.rng.choice([PAYEE.address, SENDER.address])
        topics = [SCORE_SETTLED, encode(["uint64"], [self.rng.randint(1, 9)]), encode(["address"], [node])]
        figures = [self.rng.randrange(65_536), 0, 3, 0, 10**20]
        self.log(topics, encode(["uint16", "uint16", "uint256", "uint256", "uint256"], figures))

    def happen(self) -> None:
        event = self.rng.randrange(6)
        if event < 2:
            for _ in range(self.rng.randint(1, 3)):
                self.rng.choice([self.deposit, self.score])()
            self.sim.mine(at_most=self.rng.choice([1, 2, 1000]))
        elif event == 2:
            for _ in range(self.rng.randint(1, 4)):
                self.sim.mine(empty=self.rng.random() < 0.5)
        elif event == 3:
            self.sim.reorganise(self.rng.randint(1, 8), keep=self.rng.random() < 0.5)
            for _ in range(self.rng.randint(0, 9)):
                self.sim.mine(empty=self.rng.random() < 0.5)


class Follower:
    """Keeps what updates say, and checks that they only take back what they gave."""

    def __init__(self) -> None:
        self.held: list[Indexed] = []

    def take(self, update: Update) -> None:
        for indexed in update.reverted:
            assert self.held.pop() == indexed
        self.held += update.applied


async def follow(seed: int, store: Store) -> None:
    history = History(seed)
    rng, sim = history.rng, history.sim
    options = {"range_size": rng.choice([1, 3, 100]), "confirmations": rng.choice([0, 0, 2])}
    chain = Chain(network(), transport=sim, clock=sim.clock())
    log = IndexStore(store, uuid4().hex)
    index, follower = Indexer(chain, log, empty_checkpoints=2, **options), Follower()
    unruly = rng.random() < 0.5

    def meanwhile(method: str) -> None:
        if unruly and rng.random() < 0.1:
            history.happen()

    for _ in range(rng.randint(3, 15)):
        history.happen()
        if rng.random() < 0.6:
            sim.after = meanwhile
            follower.take(await index.poll())
            sim.after = lambda method: None
        if rng.random() < 0.2:  # the process dies and another takes over
            index = Indexer(chain, log, empty_checkpoints=2, **options)
            await index.load()
            assert index.events == follower.held
    for _ in range(12):  # longer than any reorganisation shortened it
        sim.mine()
    follower.take(await index.poll())
    fresh = Indexer(chain, **options)
    await fresh.poll()
    assert follower.held == index.events == fresh.events
    assert index.head == fresh.head == len(sim.blocks) - 1 - options["confirmations"]
    assert fold(i.event for i in index.events) == fold(i.event for i in fresh.events)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with Store.open("sqlite://") as opened:
        yield opened


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_sequence_of_reorgs_ends_where_a_fresh_index_does(store: Store, seed: int) -> None:
    asyncio.run(follow(seed, store))


@given(st.lists(st.tuples(st.sampled_from([PAYEE.address, SENDER.address]), st.integers(1, 2**128)), max_size=20))
def test_folding_is_the_same_in_one_go_or_in_two(deposits: list[tuple[str, int]]) -> None:
    events = [Deposited(account, account, amount) for account, amount in deposits]  # type: ignore[arg-type]
    half = len(events) // 2
    assert fold(events[half:], fold(events[:half])) == fold(events)
    assert fold(events).escrowed == sum(amount for _, amount in deposits)
    assert fold([]) == NetworkState()


@pytest.mark.anyio
async def test_blocks_kept_before_transactions_were_noted_are_read_still(tmp_path: Path) -> None:
    amount = encode(["uint256"], [7])
    topics = [DEPOSITED, encode(["address"], [PAYEE.address]), encode(["address"], [OTHER])]
    with Store.open(tmp_path / "index.db") as store:
        log = IndexStore(store, "old")
        await log.replace(above=-1, blocks=[(5, bytes(32), msgspec.msgpack.encode([(2, LOGGER, topics, amount)]))])
        index = Indexer(Chain(network(), transport=SimChain()), log)
        await index.load()
    (found,) = index.events
    assert (found.event, found.tx_hash) == (Deposited(PAYEE.address, OTHER, 7), ZERO_HASH)
    assert (found.block_number, found.log_index, found.contract) == (5, 2, LOGGER)
