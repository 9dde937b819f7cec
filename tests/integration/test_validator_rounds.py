"""A validator reads receipts, draws sessions after they are signed, judges them, and holds no honest node guilty."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from signed_sessions import inputs, session, signer, strict, tiny_llama
from torch import Tensor

from corolla_core.chain.disputes import Outcome as Ruling
from corolla_core.chain.faults import Payment
from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.model.replay import run
from corolla_core.protocol.beacon import BEACON_DELAY
from corolla_core.protocol.errors import ChainUnreachable, OpeningUnavailable, PeerUnreachable, StoreError
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, TrancheId
from corolla_core.protocol.provable import ProvableFault, Publication
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt
from corolla_core.protocol.reputation import History
from corolla_core.protocol.span import Span
from corolla_core.protocol.suspicion import Standing
from corolla_core.protocol.transcript import Entry
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.verdict import Outcome
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_validator.auditor import Auditor
from corolla_validator.evidence_folder import EvidenceFolder
from corolla_validator.examiner import Examiner
from corolla_validator.known_nodes import KnownNodes
from corolla_validator.ports import Charge, Known, Paid, Trial
from corolla_validator.recent import RecentLookup
from corolla_validator.rounds import AGAIN_SECONDS, AWAY_SECONDS, REDEEMED_SECONDS, TRIALS, TRIES, Plan, Rounds
from corolla_validator.scores import Rated

pytestmark = pytest.mark.anyio
SPAN = Span(1, 3)
HONEST, CHEAT = signer("honest"), signer("cheat")


class Swarm:
    """Nodes, their receipts and their rows; a chain that makes a block whenever it is hurried; a clock."""

    def __init__(self, root: ModelRoot) -> None:
        self.root = root
        self.entries: dict[str, list[Entry]] = {HONEST.address: [], CHEAT.address: []}
        self.signed_over: dict[str, list[SignedReceipt]] = {}
        self.refusing: set[str] = set()
        self.down: set[str] = set()
        self.busy: set[str] = set()
        self.offline: set[str] = set()
        self.blocks = 100
        self.now = time.time()
        self.opened = 0

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        return [self._announcement(account) for account in self.entries if account not in self.offline]

    async def height(self) -> int:
        return self.blocks

    async def hash_at(self, height: int) -> Hash32:
        assert height <= self.blocks, "no one knows a block that is not mined"
        return Hash32(sha256(b"block %d" % height).digest())

    async def hurry(self) -> None:
        self.blocks += 1

    async def receipts(self, node: Announcement, t_out: int, after: Hash32) -> tuple[list[SignedReceipt], bool]:
        if node.account in self.down:
            raise PeerUnreachable("down", peer=node.account)
        all_ = sorted((e.signed for e in self.entries[node.account]), key=lambda s: (s.receipt.t_out, s.receipt.hash()))
        found = [s for s in all_ if (s.receipt.t_out, s.receipt.hash()) > (t_out, after)]
        return found[:3], len(found) > 3

    async def named(self, node: Announcement, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        return [one for one in self.signed_over.get(node.account, []) if one.receipt.hash() in hashes]

    async def open(self, node: Announcement, signed: SignedReceipt) -> Entry:
        self.opened += 1
        if node.account in self.down:
            raise PeerUnreachable("down", peer=node.account)
        if node.account in self.busy:
            raise OpeningUnavailable("later", receipt=signed.receipt.hash(), reason="busy")
        if node.account in self.refusing:
            raise OpeningUnavailable("no", receipt=signed.receipt.hash(), reason="unknown")
        return next(e for e in self.entries[node.account] if e.signed == signed)

    def _announcement(self, account: str) -> Announcement:
        now = int(self.now * 1000)
        return Announcement(
            network="test",
            model_root=self.root,
            span=SPAN,
            account=account,  # type: ignore[arg-type]
            peer_id="p",
            host="127.0.0.1",
            port=1,
            cert_hash=Hash32(bytes(32)),
            price_per_token_block=1,
            numeric_class=NumericClass.FP32,
            wire_dtypes=("float32",),
            throughput=1,
            kv_free_tokens=1,
            state=NodeState.ONLINE,
            issued_at=now,
            expires_at=now + 60_000,
        )


class FakeCourt:
    """Where findings are taken to; `down` makes it out of reach."""

    def __init__(self) -> None:
        self.charges: list[Charge] = []
        self.demanded: list[tuple[SignedReceipt, ...]] = []
        self.redeemed: Paid | None = None
        self.refunds: list[Paid | None] = []
        self.faults: list[ProvableFault] = []
        self.payment_for_faults: Payment | None = None
        self.payments: list[Payment | None] = []
        self.rulings: list[Ruling] = []
        self.down = False

    async def paid(self, charge: Charge) -> Paid | None:
        if self.down:
            raise ChainUnreachable("down")
        return self.redeemed

    async def accuse(self, charge: Charge, paid: Paid | None) -> Trial | None:
        self.charges.append(charge)
        self.refunds.append(paid)
        return Trial(len(self.charges), ours=True)

    async def outcome(self, dispute: int) -> Ruling:
        return self.rulings[dispute - 1] if dispute <= len(self.rulings) else Ruling.OPEN

    async def payment(self, node: Address, receipts: Collection[Receipt]) -> Payment | None:
        if self.down:
            raise ChainUnreachable("down")
        return self.payment_for_faults

    async def prove(self, fault: ProvableFault, payment: Payment | None) -> Nectar | None:
        self.payments.append(payment)
        self.faults.append(fault)
        return Nectar(7)

    def demand(self, chain: tuple[SignedReceipt, ...]) -> None:
        self.demanded.append(chain)


class World:
    def __init__(self, checkpoint: Checkpoint, manifest: Manifest, store: Store, folder: Path) -> None:
        self.manifest = manifest
        self.swarm = Swarm(manifest.root)
        self.store = store
        self.books = ValidatorStore(store)
        self.evidence = EvidenceFolder(folder, limit=10**7)
        self.auditor = Auditor.of(checkpoint, manifest, strict(manifest, [SPAN]))
        self.events: list[dict[str, object]] = []
        self.blocks = load_blocks(checkpoint, SPAN, manifest=manifest)
        self.part = load_blocks(checkpoint, Span(1, 2), manifest=manifest)
        self.court = FakeCourt()
        self.publication = Publication(
            manifest.root, manifest.block_roots, frozenset({NumericClass.FP32}), 1, UnixTime(0)
        )
        self.rounds = self.new_rounds()

    def new_rounds(self, plan: Plan | None = None, known: Known | None = None) -> Rounds:
        swarm = self.swarm
        self.rounds = Rounds(
            model_root=self.manifest.root,
            num_blocks=self.manifest.num_blocks,
            directory=swarm,
            nodes=swarm,
            beacons=swarm,
            store=self.store,
            examiner=Examiner(swarm, self.store, self.auditor, self.evidence, clock=lambda: swarm.now),
            published=self,
            clock=lambda: swarm.now,
            tell=self.events.append,
            known=known,
            court=self.court,
            plan=plan or Plan(Fraction(1), quiet=2.0),
        )
        return self.rounds

    async def now(self, *, within: float = 60.0) -> Publication | None:
        return self.publication

    def honest(self, x: Tensor) -> Tensor:
        return run(self.blocks, x)

    def skips(self, x: Tensor) -> Tensor:
        """Only the first of its two blocks."""
        return run(self.part, x)

    def serve(self, node: str, name: str, seed: int) -> None:
        who = HONEST if node == "honest" else CHEAT
        compute = self.honest if node == "honest" else self.skips
        t_out = int(self.swarm.now * 1000)
        made = session(who, self.manifest, SPAN, inputs(seed), compute, name=name, t_out=t_out)
        self.swarm.entries[who.address] += made

    async def pass_rounds(self, count: int = BEACON_DELAY + 4) -> None:
        for _ in range(count):
            self.swarm.now += 1
            await self.rounds.round()

    def standing_of_cheat(self) -> Standing:
        return self.rounds.standing(CHEAT.address)

    def outcomes(self) -> list[tuple[str, str]]:
        return [(record.node, record.verdict.outcome.value) for record in self.books.audits()]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def manifest(checkpoint: Checkpoint) -> Manifest:
    return build_manifest(checkpoint)


@pytest.fixture
async def world(checkpoint: Checkpoint, manifest: Manifest, tmp_path: Path) -> AsyncIterator[World]:
    async with Store.open(tmp_path / "books.db") as store:
        yield World(checkpoint, manifest, store, tmp_path / "evidence")


async def test_the_directory_is_asked_again_only_after_a_while(world: World) -> None:
    now, swarm = 100.0, world.swarm
    recent = RecentLookup(swarm, seconds=10, clock=lambda: now)
    assert len(await recent.lookup(swarm.root, 4)) == 2
    swarm.entries[signer("late").address] = []
    now += 9
    assert len(await recent.lookup(swarm.root, 4)) == 2
    now += 2
    assert len(await recent.lookup(swarm.root, 4)) == 3


async def test_honest_work_passes_and_a_skipped_block_fails(world: World) -> None:
    world.serve("honest", "h1", 1)
    world.serve("cheat", "c1", 2)
    await world.pass_rounds()
    assert sorted(world.outcomes()) == sorted([(HONEST.address, "passed"), (CHEAT.address, "failed")])
    assert world.rounds.standing(HONEST.address) is Standing.CLEAR
    assert world.rounds.standing(CHEAT.address) is Standing.QUARANTINED
    assert {event["outcome"] for event in world.events} == {"passed", "failed"}


async def test_three_failures_on_fresh_inputs_are_disputed_and_the_same_input_counts_once(world: World) -> None:
    for number, seed in enumerate((5, 5, 5, 6)):
        world.serve("cheat", f"s{number}", seed)
    await world.pass_rounds()
    assert world.rounds.standing(CHEAT.address) is Standing.QUARANTINED
    world.serve("cheat", "s9", 7)
    await world.pass_rounds()
    assert world.rounds.standing(CHEAT.address) is Standing.DISPUTED
    assert len(world.outcomes()) == 5
    await world.pass_rounds(int(REDEEMED_SECONDS))
    (charge,) = world.court.charges
    assert charge.node == CHEAT.address
    assert len(charge.counts) == 5
    heads = [count.signed.receipt for count in charge.counts]
    assert [world.evidence.read(count.evidence).head for count in charge.counts] == heads
    assert heads == sorted(heads, key=lambda head: head.hash())
    assert charge.receipts == {entry.receipt.hash() for entry in world.swarm.entries[CHEAT.address]}
    assert charge.latest == {entry.receipt.hash() for entry in world.swarm.entries[CHEAT.address][-3:]}
    assert world.court.refunds == [None]  # it never redeemed: nobody is waited for any longer


@pytest.mark.parametrize("late", [False, True])
async def test_an_accusation_waits_until_the_last_session_was_redeemed(world: World, late: bool) -> None:
    for number in range(3):
        world.swarm.now += 1
        world.serve("cheat", f"s{number}", number)
    first, last = (world.swarm.entries[CHEAT.address][at].receipt.hash() for at in (0, -1))
    world.court.redeemed = Paid(TrancheId(b"t" * 32), Nectar(5), frozenset({first}))
    await world.pass_rounds()
    assert world.standing_of_cheat() is Standing.DISPUTED
    assert world.court.charges == []
    if not late:
        world.court.redeemed = Paid(TrancheId(b"t" * 32), Nectar(9), frozenset({first, last}))
    await world.pass_rounds(int(REDEEMED_SECONDS) if late else 1)
    assert world.court.refunds == [world.court.redeemed]


async def test_a_chain_out_of_reach_delays_an_accusation_and_loses_none(world: World) -> None:
    for number in range(3):
        world.serve("cheat", f"s{number}", number)
    world.court.down = True
    with pytest.raises(ChainUnreachable):
        await world.pass_rounds()
    assert world.court.charges == []
    world.court.down = False
    await world.pass_rounds(int(REDEEMED_SECONDS))
    assert len(world.court.charges) == 1


@pytest.mark.parametrize(
    ("rulings", "brought"),
    [
        ([], 1),
        ([Ruling.CORRECT], 1),
        ([Ruling.FAULTY], 1),
        ([Ruling.DRAW, Ruling.FAULTY], 2),
        ([Ruling.UNAVAILABLE, Ruling.DRAW, Ruling.UNAVAILABLE, Ruling.DRAW], TRIALS),
    ],
)
async def test_a_node_is_charged_again_until_a_jury_decides(world: World, rulings: list[Ruling], brought: int) -> None:
    for number in range(3):
        world.serve("cheat", f"s{number}", number)
    world.court.rulings = rulings
    await world.pass_rounds()
    await world.pass_rounds(int(REDEEMED_SECONDS) + 10)
    assert len(world.court.charges) == brought
    assert [event["dispute"] for event in world.events if event["event"] == "accused"] == list(range(1, brought + 1))


async def test_nothing_is_judged_before_its_beacon_is_mined(world: World) -> None:
    world.serve("cheat", "c1", 1)
    await world.pass_rounds(BEACON_DELAY)
    assert world.swarm.opened == 0
    await world.pass_rounds(3)
    assert world.swarm.opened == 3


async def test_a_session_is_audited_once_also_by_a_validator_that_starts_again(world: World) -> None:
    world.serve("cheat", "c1", 1)
    await world.pass_rounds()
    world.new_rounds()
    await world.rounds.load()
    assert world.rounds.standing(CHEAT.address) is Standing.QUARANTINED
    await world.pass_rounds()
    assert len(world.outcomes()) == 1


async def test_a_validator_that_starts_again_takes_up_what_it_had_not_judged(world: World) -> None:
    world.serve("cheat", "c1", 1)
    await world.pass_rounds(3)
    world.new_rounds()
    await world.pass_rounds()
    assert world.outcomes() == [(CHEAT.address, "failed")]


async def test_no_session_is_drawn_at_probability_zero_but_all_of_a_node_in_quarantine(world: World) -> None:
    world.new_rounds(Plan(Fraction(0), quiet=2.0))
    world.serve("cheat", "c1", 1)
    await world.pass_rounds()
    assert world.outcomes() == []
    world.new_rounds(Plan(Fraction(1), quiet=2.0))
    await world.pass_rounds()
    assert world.outcomes() == [(CHEAT.address, "failed")]
    world.new_rounds(Plan(Fraction(0), quiet=2.0))
    await world.rounds.load()
    world.serve("cheat", "c2", 2)
    world.serve("honest", "h1", 3)
    await world.pass_rounds()
    assert world.outcomes() == [(CHEAT.address, "failed")] * 2


async def test_every_session_of_a_newcomer_is_audited_and_of_a_known_node_as_many_as_usual(world: World) -> None:
    asked = 0
    clock = 0.0

    async def rated() -> dict[Address, Rated]:
        nonlocal asked
        asked += 1
        return {
            node: Rated(node, History(), 1, 0, probation=probation)
            for node, probation in ((HONEST.address, False), (CHEAT.address, True))
        }

    world.new_rounds(Plan(Fraction(0), quiet=2.0), KnownNodes(rated, seconds=30, clock=lambda: clock))
    for number in range(3):
        world.serve("honest", f"h{number}", number)
        world.serve("cheat", f"c{number}", number)
        await world.pass_rounds()
    assert world.outcomes() == [(CHEAT.address, "failed")] * 3
    assert asked == 1
    clock += 30
    world.serve("honest", "h9", 9)
    await world.pass_rounds()
    assert asked == 2


async def test_refusing_to_open_is_told_after_some_tries_and_harms_nobody_else(world: World) -> None:
    world.serve("cheat", "c1", 1)
    world.serve("honest", "h1", 2)
    world.swarm.refusing.add(CHEAT.address)
    await world.pass_rounds(BEACON_DELAY + 4 + TRIES)
    assert world.outcomes() == [(HONEST.address, "passed")]
    (withheld,) = [event for event in world.events if event["event"] == "withheld"]
    assert withheld["node"] == CHEAT.address
    assert world.court.demanded == [tuple(entry.signed for entry in world.swarm.entries[CHEAT.address])]
    assert world.rounds.standing(CHEAT.address) is Standing.CLEAR  # nothing is known of its numbers


@pytest.mark.parametrize("trouble", ["down", "busy", "offline"])
async def test_a_node_that_crashed_or_is_busy_is_asked_again_and_holds_nobody_up(world: World, trouble: str) -> None:
    world.serve("honest", "h1", 2)
    world.serve("cheat", "c1", 1)
    await world.pass_rounds(2)
    getattr(world.swarm, trouble).add(HONEST.address)
    await world.pass_rounds(BEACON_DELAY + 4 + 5 * TRIES)
    assert world.outcomes() == [(CHEAT.address, "failed")]
    getattr(world.swarm, trouble).clear()
    await world.pass_rounds(int(AGAIN_SECONDS) + 1)
    assert sorted(world.outcomes()) == sorted([(CHEAT.address, "failed"), (HONEST.address, "passed")])
    assert {event["event"] for event in world.events} == {"audit"}


async def test_who_stays_away_does_not_open_what_it_signed_for(world: World) -> None:
    world.serve("cheat", "c1", 1)
    await world.pass_rounds(2)
    world.swarm.offline.add(CHEAT.address)
    await world.pass_rounds(BEACON_DELAY + 4)
    world.swarm.now += AWAY_SECONDS
    await world.pass_rounds(2)
    assert [event["event"] for event in world.events] == ["withheld"]


async def test_rows_it_did_not_sign_for_are_withheld_rows(world: World) -> None:
    world.serve("cheat", "c1", 1)
    honest = session(CHEAT, world.manifest, SPAN, inputs(1), world.honest, name="c1", t_out=1)
    real = world.swarm.entries[CHEAT.address]
    world.swarm.entries[CHEAT.address] = [
        replace(one, outputs=other.outputs) for one, other in zip(real, honest, strict=True)
    ]
    await world.pass_rounds(BEACON_DELAY + 4 + TRIES)
    assert world.outcomes() == []
    assert [event["event"] for event in world.events] == ["withheld"]


@pytest.mark.parametrize("redeemed", [True, False])
async def test_a_proof_waits_a_while_for_the_redemption_that_it_refunds(world: World, redeemed: bool) -> None:
    world.serve("cheat", "c1", 1)
    last = world.swarm.entries[CHEAT.address][-1]
    payment = Payment(TrancheId(b"t" * 32), last.receipt) if redeemed else None
    other = replace(last.receipt, t_out=last.receipt.t_out + 1).sign(CHEAT)
    world.swarm.entries[CHEAT.address].append(replace(last, signed=other))
    await world.pass_rounds(2)
    assert world.court.faults == []
    world.court.payment_for_faults = payment
    await world.pass_rounds(1 if redeemed else int(REDEEMED_SECONDS))
    assert len(world.court.faults) == 1
    assert world.court.payments == [payment]


async def test_a_fork_of_the_chain_is_told_once(world: World) -> None:
    world.serve("cheat", "c1", 1)
    last = world.swarm.entries[CHEAT.address][-1]
    other = replace(last.receipt, t_out=last.receipt.t_out + 1).sign(CHEAT)
    world.swarm.entries[CHEAT.address].append(replace(last, signed=other))
    await world.pass_rounds(int(REDEEMED_SECONDS) + 2)
    forks = [event for event in world.events if event["event"] == "fault"]
    assert len(world.court.faults) == 1
    assert [(fork["fault"], fork["node"]) for fork in forks] == [("fork", CHEAT.address)]
    assert [set(fork["receipts"]) for fork in forks] == [{last.receipt.hash().hex(), other.receipt.hash().hex()}]  # type: ignore[call-overload]


async def test_a_node_that_is_down_or_shows_others_receipts_stops_no_round(world: World) -> None:
    world.serve("honest", "h1", 2)
    world.swarm.down.add(CHEAT.address)
    await world.pass_rounds()
    assert world.outcomes() == [(HONEST.address, "passed")]
    world.swarm.down.clear()
    world.swarm.entries[CHEAT.address] = session(
        HONEST, world.manifest, SPAN, inputs(9), world.skips, name="framed", t_out=int(world.swarm.now * 1000)
    )
    await world.pass_rounds()
    assert world.outcomes() == [(HONEST.address, "passed")]
    assert world.rounds.standing(HONEST.address) is Standing.CLEAR


async def test_every_verdict_can_be_judged_again_from_its_evidence(world: World) -> None:
    world.serve("honest", "h1", 1)
    world.serve("cheat", "c1", 2)
    await world.pass_rounds()
    for record in world.books.audits():
        again = world.auditor.judge(world.evidence.read(record.evidence))
        assert (again.statistics, again.verdict) == (record.statistics, record.verdict)
    assert {record.evidence for record in world.books.audits()} == set(world.evidence.names())


async def test_a_juror_judges_a_disputed_chain_by_itself_up_to_the_very_receipt(world: World) -> None:
    world.serve("cheat", "c1", 1)
    world.new_rounds(Plan(Fraction(0), quiet=2.0))
    await world.pass_rounds(2)
    second = world.swarm.entries[CHEAT.address][1].receipt.hash()
    assert await world.rounds.outcome_of(CHEAT.address, second) is Outcome.FAILED
    assert [record.head for record in world.books.audits()] == [second]
    opened = world.swarm.opened
    assert await world.rounds.outcome_of(CHEAT.address, second) is Outcome.FAILED  # from its books
    assert world.swarm.opened == opened
    assert await world.rounds.outcome_of(CHEAT.address, Hash32(b"\x07" * 32)) is None
    world.swarm.refusing.add(CHEAT.address)
    with pytest.raises(OpeningUnavailable):
        await world.rounds.outcome_of(CHEAT.address, world.swarm.entries[CHEAT.address][2].receipt.hash())


async def test_damaged_evidence_is_a_typed_error(world: World, tmp_path: Path) -> None:
    world.serve("cheat", "c1", 2)
    await world.pass_rounds()
    (record,) = world.books.audits()
    (path,) = (tmp_path / "evidence" / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError):
        world.evidence.read(record.evidence)
    with pytest.raises(StoreError):
        world.evidence.read(Hash32(b"\x01" * 32))


async def test_passing_evidence_makes_room_and_failing_evidence_stays(world: World, tmp_path: Path) -> None:
    world.evidence = EvidenceFolder(tmp_path / "evidence", limit=25_000)
    world.new_rounds()
    world.serve("cheat", "c1", 0)
    for number in range(1, 5):
        world.serve("honest", f"h{number}", number)
    await world.pass_rounds()
    kept = set(world.evidence.names())
    failed = {record.evidence for record in world.books.audits(outcome=Outcome.FAILED)}
    assert failed
    assert failed < kept
    assert len(kept) < len(world.outcomes()) == 5


async def test_numbers_that_are_none_fail_who_signed_for_them(world: World) -> None:
    t_out = int(world.swarm.now * 1000)
    nan = session(
        CHEAT, world.manifest, SPAN, inputs(1), lambda x: torch.full_like(x, float("nan")), name="n", t_out=t_out
    )
    world.swarm.entries[CHEAT.address] += nan
    await world.pass_rounds()
    assert world.outcomes() == [(CHEAT.address, "failed")]
