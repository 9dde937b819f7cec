"""What a validator does, round after round: read receipts, draw sessions, have their rows opened, judge, remember."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction

import structlog

from corolla_core.chain.disputes import Outcome as Ruling
from corolla_core.protocol.errors import (
    CorollaError,
    InvalidProof,
    NetworkError,
    OpeningUnavailable,
    PeerUnreachable,
    ServingError,
)
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot, SessionId
from corolla_core.protocol.provable import ProvableFault, kind
from corolla_core.protocol.receipt_chain import ChainKey, Linked
from corolla_core.protocol.suspicion import Standing, Suspicion
from corolla_core.protocol.verdict import Outcome
from corolla_core.store.store import Store
from corolla_core.store.validator_store import AuditRecord, ValidatorStore
from corolla_core.swarm.announcement import Announcement
from corolla_validator.draw import Watchlist, prefix
from corolla_validator.examiner import Examiner
from corolla_validator.fault_finder import FaultFinder
from corolla_validator.ports import Beacons, Charge, Clock, Count, Court, Known, Lookup, Nodes, Publications, Tell
from corolla_validator.reader import Reader

_log = structlog.get_logger(__name__)

REDEEMED_SECONDS = 15.0
"""How long an accusation waits until the node has redeemed what it was paid for the session."""
MOST_COUNTS = 64
"""Of the sessions a node failed in, how many of the newest it is charged with."""
TRIALS = 3
"""How often a node is charged with the same until a jury decides: one that is drawn or cannot see the rows does not."""
TRIES = 5
"""How often a node is asked for the rows of a drawn session before that counts as refusing to open them."""
AWAY_SECONDS = 600.0
"""How long a drawn session waits for a node that is busy or cannot be reached: who crashed has the rows still."""
AGAIN_SECONDS = 5.0
"""How soon such a node is asked again: it may be dear to find out that nobody is there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is audited: every session with `probability`, those of newcomers and of nodes in quarantine always, the
    first `most_positions` positions of each. `window`: seconds for which nodes keep their rows. `quiet`: see
    Watchlist."""

    probability: Fraction = Fraction(1, 10)
    most_positions: int = 1024
    window: float = 86_400.0
    quiet: float = 5.0


@dataclass(slots=True)
class _Drawn:
    key: ChainKey
    beacon: Hash32
    since: float
    tries: int = 0


@dataclass(slots=True)
class _Charged:
    since: float
    dispute: int | None = None
    trials: int = 0


class Rounds:
    """One validator of one model version."""

    def __init__(
        self,
        *,
        model_root: ModelRoot,
        num_blocks: int,
        directory: Lookup,
        nodes: Nodes,
        beacons: Beacons,
        store: Store,
        examiner: Examiner,
        published: Publications,
        clock: Clock,
        tell: Tell,
        known: Known | None = None,
        court: Court | None = None,
        plan: Plan | None = None,
    ) -> None:
        """`known`: the nodes that are newcomers no more, whose every session is audited; without it nobody is one."""
        self._model_root = model_root
        self._num_blocks = num_blocks
        self._directory = directory
        self._nodes = nodes
        self._beacons = beacons
        self._store = store
        self._books = ValidatorStore(store)
        self._examiner = examiner
        self._clock = clock
        self._tell = tell
        self._known = known
        self._court = court
        self.plan = plan or Plan()
        self._reader = Reader(nodes, store, since=int((clock() - self.plan.window) * 1000))
        self._watch = Watchlist(quiet=self.plan.quiet)
        self._online: dict[Address, Announcement] = {}
        self._drawn: list[_Drawn] = []
        self._away_until: dict[Address, float] = {}
        self._grown: dict[ChainKey, Linked] = {}
        self._finder = FaultFinder(nodes, store, published)
        self._charged: dict[Address, _Charged] = {}
        self._faults: list[tuple[ProvableFault, float]] = []
        self._suspicions: dict[Address, Suspicion] = {}

    async def load(self) -> None:
        """Take up what earlier runs found."""
        for record in await self._store.run(self._books.audits):
            self._weigh(record)

    @property
    def backlog(self) -> list[float]:
        """When each of the sessions was drawn whose rows are yet to be judged. Callable from any thread."""
        return [drawn.since for drawn in list(self._drawn)]

    @property
    def online(self) -> int:
        """How many nodes it saw in its last round."""
        return len(self._online)

    def standing(self, node: Address) -> Standing:
        return self._suspicions.get(node, Suspicion()).standing

    async def read(self, node: Announcement) -> list[Linked]:
        """The chains of a node that have grown since it was read last: at first, all of the window's."""
        return await self._reader.read(node)

    async def round(self) -> None:
        """Raises NetworkError when the directory, ChainError when the chain, StoreError when the store fails; what a
        node does wrong raises nothing."""
        found_online = await self._directory.lookup(self._model_root, self._num_blocks)
        online = self._online = {node.account: node for node in found_online}
        height = await self._beacons.height()
        grown = await asyncio.gather(*(self._reader.read(node) for node in online.values()))
        self._grown |= {linked.key: linked for found in grown for linked in found}
        for linked in list(self._grown.values()):
            await self._saw(linked, height)
            del self._grown[linked.key]
        now = self._clock()
        due = self._watch.due(height=height, now=now)
        known = None if self._known is None or not due else await self._known()
        for key, beacon_at in due:
            beacon = await self._beacons.hash_at(beacon_at)
            usual = self.standing(key.signer) is Standing.CLEAR and (known is None or key.signer in known)
            if self._watch.draw(key, beacon, self.plan.probability if usual else Fraction(1)):
                self._drawn.append(_Drawn(key, beacon, now))
        for drawn in list(self._drawn):
            if await self._attempt(drawn):
                self._drawn.remove(drawn)
                await self._prosecute()  # now: there may be many more to audit
        await self._prosecute()
        self._watch.forget(before=now - self.plan.window)
        needed = self._watch.needs()
        if needed is not None and needed > height:
            await self._beacons.hurry()

    async def audit(self, node: Announcement, linked: Linked, *, beacon: Hash32) -> AuditRecord | None:
        """Judge what a node signed in one session, now. None where nothing can be said of it.

        Raises as `Examiner.examine` does.
        """
        chain = prefix(linked.chain, most=self.plan.most_positions)
        record = await self._examiner.examine(node, chain, beacon=beacon) if chain else None
        if record is not None:
            self._weigh(record)
            self._tell(audited(record, self.standing(record.node)))
            if record.verdict.failed and self.standing(record.node) is Standing.DISPUTED:
                self._charged.setdefault(record.node, _Charged(self._clock()))
        return record

    async def audit_session(self, session: SessionId) -> list[Address]:
        """Judge all that nodes signed in a session, drawn or not; those that were not judged now, and may be another
        time. Raises StoreError."""
        signed = await self._store.run(self._books.receipts, session)
        left = []
        for account in sorted({one.signer() for one in signed}):
            if await self._store.run(self._books.audited, account, session):
                continue
            node = self._online.get(account)
            try:
                if node is None:
                    raise PeerUnreachable("not online", peer=account)
                for linked in await self._reader.chains(account, session):
                    await self.audit(node, linked, beacon=ZERO_HASH)
            except (OpeningUnavailable, InvalidProof, NetworkError, ServingError) as error:
                _log.info("a session cannot be judged now", peer=account, session=session, error=str(error))
                left.append(account)
        return left

    async def outcome_of(self, account: Address, head: Hash32) -> Outcome | None:
        """What is to be said of a node's chain up to the receipt with this hash; None where that cannot be had.

        Raises as `Examiner.examine` does.
        """
        known = await self._store.run(self._books.audit_up_to, account, head)
        if known is not None:
            return known.verdict.outcome
        signed = await self._store.run(self._books.receipt, head)
        node = self._online.get(account)
        if signed is None or node is None:
            return None
        for linked in await self._reader.chains(account, signed.receipt.session_id):
            hashes = [one.receipt.hash() for one in linked.chain]
            if head in hashes:
                chain = linked.chain[: hashes.index(head) + 1]
                record = await self._examiner.examine(node, chain, beacon=ZERO_HASH)
                return None if record is None else record.verdict.outcome
        return None

    async def _prosecute(self) -> None:
        """Take to court what was found; what the chain does not take now stays for the next round."""
        for found in list(self._faults):
            if self._court is None or await self._prove(self._court, *found):
                self._faults.remove(found)
        for node, charged in list(self._charged.items()):
            if self._court is None or await self._accuse(self._court, node, charged):
                del self._charged[node]

    async def _prove(self, court: Court, fault: ProvableFault, since: float) -> bool:
        """Whether that is done with. The client is refunded what the node has redeemed by then: so wait for that."""
        session = fault.receipts[0].receipt.session_id
        signed = await self._store.run(lambda: self._books.receipts(session, signer=fault.node))
        payment = await court.payment(fault.node, [one.receipt for one in signed])
        if payment is None and self._clock() < since + REDEEMED_SECONDS:
            return False
        taken = await court.prove(fault, payment)
        if taken is not None:
            self._tell({"event": "proven", "fault": kind(fault), "node": fault.node, "taken": str(taken)})
        return True

    async def _accuse(self, court: Court, node: Address, charged: _Charged) -> bool:
        """The same for what only a jury can judge: it is done with when one has."""
        if charged.dispute is not None:
            ruling = await court.outcome(charged.dispute)
            if ruling is Ruling.OPEN:
                return False
            if ruling in (Ruling.CORRECT, Ruling.FAULTY) or charged.trials >= TRIALS:
                return True
            charged.dispute = None
        charge = await self._charge(node)
        paid = await court.paid(charge)
        redeemed = paid is not None and not paid.heads.isdisjoint(charge.latest)
        if not redeemed and self._clock() < charged.since + REDEEMED_SECONDS:
            return False
        trial = await court.accuse(charge, paid)
        if trial is None:
            return True
        charged.dispute = trial.dispute
        charged.trials += 1
        if trial.ours:
            self._tell({"event": "accused", "node": node, "dispute": trial.dispute})
        return False

    async def _charge(self, node: Address) -> Charge:
        def counts() -> list[Count]:
            found = []
            for record in self._books.audits(node=node, outcome=Outcome.FAILED, limit=MOST_COUNTS):
                signed = {one.receipt.hash(): one for one in self._books.receipts(record.session, signer=node)}
                times = {hash_: one.receipt.t_out for hash_, one in signed.items()}
                found.append(Count(signed[record.head], record.evidence, times))
            return found

        found = await self._store.run(counts)
        return Charge(node, tuple(sorted(found, key=lambda count: count.signed.receipt.hash())))

    async def _saw(self, linked: Linked, height: int) -> None:
        key = linked.key
        for fault in await self._finder.look(linked, self._online):
            hashes = [signed.receipt.hash().hex() for signed in fault.receipts]
            _log.error("a node's signatures convict it", peer=fault.node, fault=kind(fault), session=key.session)
            self._faults.append((fault, self._clock()))
            self._tell({"event": "fault", "fault": kind(fault), "node": fault.node, "receipts": hashes})
        audited = await self._store.run(self._books.audited, key.signer, key.session)
        if not (audited or self._finder.unfit(key)):
            self._watch.saw(linked, height=height, now=self._clock())

    async def _attempt(self, drawn: _Drawn) -> bool:
        """Whether that is done with, one way or another."""
        signer, now = drawn.key.signer, self._clock()
        if now < self._away_until.get(signer, now):
            return False
        chains = await self._reader.chains(signer, drawn.key.session)
        linked = next((one for one in chains if one.key == drawn.key), None)
        if linked is None:
            return True
        error: CorollaError = PeerUnreachable("it is not online", peer=signer)
        node = self._online.get(signer)
        if node is not None:
            try:
                await self.audit(node, linked, beacon=drawn.beacon)
                return True
            except (OpeningUnavailable, InvalidProof, NetworkError, ServingError) as failed:
                error = failed
        if isinstance(error, NetworkError) or error.data.get("reason") == "busy":
            self._away_until[signer] = now + AGAIN_SECONDS
            if now < drawn.since + AWAY_SECONDS:
                return False
        else:
            drawn.tries += 1
            if drawn.tries < TRIES:
                return False
        about = {"peer": signer, "session": drawn.key.session, "span": str(linked.chain[0].receipt.span)}
        _log.warning("a node does not open what it signed for", **about, error=str(error))
        self._tell({"event": "withheld", "node": signer, "session": drawn.key.session.hex(), "why": str(error)})
        if self._court is not None:
            self._court.demand(linked.chain)
        return True

    def _weigh(self, record: AuditRecord) -> None:
        before = self._suspicions.get(record.node, Suspicion())
        self._suspicions[record.node] = before.after(record.verdict, record.input_digest)


def audited(record: AuditRecord, standing: Standing) -> dict[str, object]:
    """An audit as an event, and as `validator report` shows it."""
    return {
        "event": "audit",
        "node": record.node,
        "session": record.session.hex(),
        "span": str(record.span),
        "outcome": record.verdict.outcome.value,
        "positions": record.statistics.positions,
        "w16": record.statistics.w16_max,
        "reasons": [f"{reason.test} {reason.measured:.3g} > {reason.limit:.3g}" for reason in record.verdict.reasons],
        "standing": standing.value,
        "evidence": record.evidence.hex(),
    }


async def forever(
    rounds: Callable[[], Awaitable[None]], *, every: float, stop: asyncio.Event, told: Callable[[CorollaError], None]
) -> None:
    """Round after round until told to stop; one that fails is told of, and the next one tries again."""
    while not stop.is_set():
        try:
            await rounds()
        except CorollaError as error:
            told(error)
        try:
            async with asyncio.timeout(every):
                await stop.wait()
        except TimeoutError:
            continue
