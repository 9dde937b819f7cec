"""Three validators publish what their audits found, one of them lying: the median holds, and clients' routes follow."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from books import receipt, session_id
from ganache import Ganache
from typer.testing import CliRunner

from corolla.peers import Peers
from corolla.router import Candidate, Preference, find_route, hop_cost
from corolla.staked import STANDING_SECONDS, StakedLookup
from corolla.standing import BAD_SCORE, NEUTRAL_SCORE
from corolla_core.chain.deploy import ScoreTerms, Terms, deploy_all
from corolla_core.chain.disputes import new_salt
from corolla_core.chain.escrow import Escrow, RedeemItem, Tranche
from corolla_core.chain.indexer import Indexer
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.reputation import Phase, Reputation
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.state import fold
from corolla_core.chain.token import Token
from corolla_core.protocol.ids import Address, Hash32, ModelRoot
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.reputation import SCORE_ONE
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime
from corolla_core.protocol.verdict import Outcome, Statistics, Verdict
from corolla_core.protocol.voucher import Voucher
from corolla_core.store.score_store import ScoreStore
from corolla_core.store.store import Store
from corolla_core.store.validator_store import AuditRecord, ValidatorStore
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_validator.cli.main import app
from corolla_validator.config import ValidatorSettings
from corolla_validator.press import Press
from corolla_validator.publisher import Publisher
from corolla_validator.scores import Rated
from corolla_validator.voice import PEER_ID

pytestmark = pytest.mark.anyio

TERMS = Terms(
    scores=ScoreTerms(
        commit_seconds=1_000, reveal_seconds=1_000, min_ratings=3, min_total_stake=Nectar(300 * ONE_NECTAR)
    )
)
FUNDS = Nectar(1_000 * ONE_NECTAR)
STAKE = Nectar(100 * ONE_NECTAR)
SPAN = Span(0, 10)
ROOT = ModelRoot(b"\x05" * 32)


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=TERMS, name="test"))


@dataclass
class Validator:
    """One with books of its own. `says` is what a liar says instead of what is in them."""

    signer: Signer
    store: Store
    press: Press
    chain: Chain
    says: Mapping[Address, int] | None = None
    events: list[dict[str, object]] = field(default_factory=list)

    def found(self, node: Signer, session: int, outcome: Outcome) -> None:
        """It read a receipt of the session, opened it, and judged."""
        books, signed = ValidatorStore(self.store), receipt(session=session, signer=node)
        books.record_receipt(signed)
        head = signed.receipt.hash()
        nothing = Hash32(bytes(32))
        books.record_audit(
            AuditRecord(
                evidence=head,
                node=node.address,
                session=session_id(session),
                head=head,
                span=SPAN,
                input_digest=head,
                beacon=nothing,
                calibration=nothing,
                statistics=Statistics(16, 0.0),
                verdict=Verdict(outcome),
                audited_at=UnixTime(int(time.time())),
            )
        )

    async def lies(self) -> Mapping[Address, Rated]:
        known = await self.press.ratings.now()
        assert self.says is not None
        return {
            node: Rated(node, known[node].history, 1, self.says.get(node, found.score), False)
            for node, found in known.items()
        }

    def liar(self, says: Mapping[Address, int]) -> None:
        self.says = says
        publisher = Publisher(
            Reputation(self.chain, TransactionSender(self.chain, self.signer)),
            self.signer.address,
            self.store,
            ScoreStore(self.store, oracle=self.chain.network.reputation, validator=self.signer.address),
            rated=self.lies,
            stake=self.press.voice.stake,
            hurry=self.idle,
            salt=new_salt,
            clock=time.time,
            tell=self.events.append,
        )
        self.press = Press(publisher, self.press.voice, self.press.ratings, self.press.settings)

    async def idle(self) -> None:
        return None


class World:
    """Two staked nodes that serve the same blocks, who pays them, and a client's view of the two."""

    def __init__(self, chain: Chain, ganache: Ganache) -> None:
        self.chain, self.ganache = chain, ganache
        self.minter, self.payer, self.honest, self.caught = ganache.accounts[:4]
        self.validators: list[Validator] = []
        self.oracle = Reputation(chain)
        self.paid = dict.fromkeys((self.honest.address, self.caught.address), 0)
        self.client_time = 0.0
        clock = lambda: self.client_time  # noqa: E731
        self.staked = StakedLookup(self, Registry(chain), self.oracle, clock=clock, rng=random.Random(1))
        self.peers = Peers(self.staked, ROOT, 10, rtt=lambda _account: 0.0, standing=self.staked.standing, clock=clock)

    def sender(self, signer: Signer) -> TransactionSender:
        return TransactionSender(self.chain, signer)

    async def set_up(self) -> None:
        for signer in (self.payer, self.honest, self.caught, *self.ganache.accounts[4:7]):
            await Token(self.chain, self.sender(self.minter)).mint(signer.address, FUNDS)
        for node in (self.honest, self.caught):
            await Registry(self.chain, self.sender(node)).register(b"peer", node.address, STAKE)
        self.tree = SumTree([Leaf(node, Nectar(10 * ONE_NECTAR)) for node in self.paid])
        escrow = Escrow(self.chain, self.sender(self.payer))
        await escrow.deposit(self.tree.root.sum)
        self.tranche: Tranche = await escrow.open_tranche(self.tree.root, UnixTime(await self.chain.now() + 100_000))

    async def pays(self, node: Signer, session: int) -> None:
        """One token for a session, redeemed by the node."""
        self.paid[node.address] += ONE_NECTAR
        head = receipt(session=session, signer=node).receipt.hash()
        voucher = Voucher(self.tranche.id, node.address, Nectar(self.paid[node.address]), head)
        index = next(i for i, leaf in enumerate(self.tree.leaves) if leaf.payee == node.address)
        item = RedeemItem(
            voucher.sign(self.chain.network.domain, self.payer), self.tree.leaves[index], self.tree.proof(index)
        )
        await Escrow(self.chain, self.sender(node)).redeem([item])

    async def served(self, node: Signer, session: int, outcome: Outcome) -> None:
        await self.pays(node, session)
        for validator in self.validators:
            validator.found(node, session, outcome)

    async def to_phase(self, phase: Phase) -> None:
        while True:
            self.ganache.advance(max(1, (await self.oracle.now()).until - await self.chain.now()))
            if (await self.oracle.now()).phase is phase:
                return

    async def an_epoch(self) -> None:
        """From a commit phase into the next one, every validator doing its rounds."""
        for phase in (Phase.REVEAL, Phase.COMMIT):
            for validator in self.validators:
                await validator.press.round()
            await self.to_phase(phase)
        for validator in self.validators:
            await validator.press.round()

    # ---- what a client sees ----

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        now = int(time.time() * 1000)
        return [
            Announcement(
                network="test",
                model_root=ROOT,
                span=SPAN,
                account=account,
                peer_id="p",
                host="127.0.0.1",
                port=1,
                cert_hash=Hash32(bytes(32)),
                price_per_token_block=1,
                numeric_class=NumericClass.FP32,
                wire_dtypes=("float32",),
                # the caught node is a little faster, so that it would be chosen for its speed
                throughput=1_200 if account == self.caught.address else 1_000,
                kv_free_tokens=1_000,
                state=NodeState.ONLINE,
                issued_at=now,
                expires_at=now + 60_000,
            )
            for account in self.paid
        ]

    async def candidates(self) -> dict[Address, Candidate]:
        self.client_time += STANDING_SECONDS
        await self.peers.refresh()
        return {c.account: c for c in self.peers.candidates(tokens=10, wire_dtype="float32")}


@pytest.fixture
async def world(network: Network, ganache: Ganache, tmp_path: Path) -> AsyncIterator[World]:
    snapshot = ganache.snapshot()
    async with await Chain.connect(network) as chain, AsyncExitStack() as stack:
        world = World(chain, ganache)
        await world.set_up()
        for number, signer in enumerate(ganache.accounts[4:7]):
            store = stack.enter_context(Store.open(tmp_path / f"{number}.db"))
            events: list[dict[str, object]] = []
            press = Press.of(chain, signer, store, ValidatorSettings(), tell=events.append)
            assert press is not None
            await press.join()
            world.validators.append(Validator(signer, store, press, chain, events=events))
        yield world
    ganache.revert(snapshot)


async def reported(world: World, folder: Path, validator: int) -> list[dict[str, object]]:
    """What `validator report --scores` shows."""
    command = ["report", "--scores", "--json", f"--network={world.chain.network.save(folder)}"]
    env = {"COROLLA_HOME": str(folder), "COROLLA_VALIDATOR_STORE": f"sqlite:///{folder / f'{validator}.db'}"}
    result = await asyncio.to_thread(lambda: CliRunner().invoke(app, command, env=env))
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


async def test_a_lying_validator_is_outvoted_and_the_caught_node_is_left(world: World, tmp_path: Path) -> None:
    honest, caught = world.honest.address, world.caught.address
    registry = Registry(world.chain)
    for validator in world.validators:
        record = await registry.node(validator.signer.address)
        assert (record.peer_id, record.stake, record.active) == (PEER_ID, STAKE, True)
        await validator.press.join()
        assert (await registry.node(validator.signer.address)).stake == STAKE  # once is enough

    # Newcomers to everybody, and the faster one is taken.
    before = await world.candidates()
    assert {c.score for c in before.values()} == {NEUTRAL_SCORE}
    assert find_route(list(before.values()), SPAN)[0].account == caught

    # Both earn a name; the third validator is in league with the node that will cheat.
    world.validators[2].liar({honest: 0, caught: SCORE_ONE})
    await world.to_phase(Phase.COMMIT)
    await world.served(world.honest, 1, Outcome.PASSED)
    await world.served(world.caught, 2, Outcome.PASSED)
    await world.an_epoch()
    expected = await world.validators[0].press.ratings.now()
    assert expected[honest].history.passed == pytest.approx(99, rel=1e-3)  # 1 token, a hundredth of it burned
    settled = {node: await world.oracle.settled(node) for node in (honest, caught)}
    assert settled[honest] is not None
    assert settled[caught] is not None
    assert settled[honest].score == pytest.approx(expected[honest].score, abs=2)
    assert settled[honest].ratings == 3
    named = await world.candidates()
    assert all(c.score > 0.95 for c in named.values())
    assert find_route(list(named.values()), SPAN)[0].account == caught

    # It cheats in half of what it does from now on, and is caught at it by all but its friend.
    for session in (3, 4, 5):
        await world.served(world.caught, session, Outcome.FAILED)
    await world.an_epoch()  # of this one the validators had spoken already
    await world.an_epoch()
    fallen = await world.oracle.settled(caught)
    steady = await world.oracle.settled(honest)
    assert fallen is not None
    assert steady is not None
    assert fallen.epoch == steady.epoch == settled[caught].epoch + 2
    assert (fallen.ratings, fallen.clipped) == (3, 1)  # the friend's praise counts as the median
    assert fallen.score < BAD_SCORE * SCORE_ONE
    assert fallen.rank == pytest.approx(fallen.score, abs=2)
    assert steady.score == pytest.approx(settled[honest].score, abs=2)  # a zero of one in three moves no median
    index = Indexer(world.chain)
    await index.poll()
    indexed = fold(found.event for found in index.events).justice.scores
    assert {node: indexed[node].score for node in (honest, caught)} == {honest: steady.score, caught: fallen.score}
    assert (indexed[caught].epoch, indexed[caught].clipped) == (fallen.epoch, 1)
    after = await world.candidates()
    worth = {node: hop_cost(after[node], SPAN, Preference()) for node in (honest, caught)}
    assert worth[caught] > 1_000 * worth[honest]
    assert find_route(list(after.values()), SPAN)[0].account == honest
    rows = {row["node"]: row for row in await reported(world, tmp_path, 0)}
    assert rows[caught]["settled"] == rows[caught]["score"] == round(fallen.score / SCORE_ONE, 4)
    assert (rows[caught]["sessions"], rows[caught]["clipped"], rows[caught]["probation"]) == (4, 1, False)
    revealed = [[e["event"] for e in v.events].count("scores revealed") for v in world.validators]
    assert revealed == [3, 3, 3]


async def test_a_validator_that_was_down_between_commit_and_reveal_reveals_from_its_books(
    world: World, tmp_path: Path
) -> None:
    first = world.validators[0]
    await world.to_phase(Phase.COMMIT)
    await world.served(world.honest, 1, Outcome.PASSED)
    await first.press.round()
    committed = await world.oracle.seat(first.signer.address)
    first.found(world.honest, 1, Outcome.PASSED)  # what it knows by then does not matter
    events: list[dict[str, object]] = []
    again = Press.of(world.chain, first.signer, first.store, ValidatorSettings(), tell=events.append)
    assert again is not None
    await again.round()
    assert (await world.oracle.seat(first.signer.address)) == committed
    await world.to_phase(Phase.REVEAL)
    await again.round()
    await again.round()
    assert [event["event"] for event in events] == ["scores revealed"]
    assert (await world.oracle.seat(first.signer.address)).revealed
