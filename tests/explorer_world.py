"""A network for the explorer to look at, made up: six nodes on thirty blocks, which a test kills and convicts."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256

import uvicorn
from books import session_id
from fastapi import FastAPI

from corolla_core.chain import events as on_chain
from corolla_core.chain.indexer import Indexed
from corolla_core.chain.state import FOR_GOOD
from corolla_core.protocol.errors import PeerUnreachable
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, Hash32, ModelRoot, TrancheId
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR, UnixTime
from corolla_core.protocol.verdict import Outcome, Reason, Statistics, Verdict
from corolla_core.store.validator_store import AuditRecord
from corolla_core.swarm.announcement import DEFAULT_TTL_MS, Announcement, NodeState
from corolla_core.swarm.messages import Info, amount
from corolla_core.swarm.tcp import listen
from corolla_validator.explorer.app import create_app
from corolla_validator.explorer.books import Shelf, shelf_of
from corolla_validator.explorer.ledger import Ledger
from corolla_validator.explorer.overview import About
from corolla_validator.explorer.playground import Playground
from corolla_validator.explorer.watch import ChainSight, Watch

BLOCKS = 30
MODEL = ModelRoot(sha256(b"model").digest())
THIRDS = (Span(0, 10), Span(10, 20), Span(20, 30))
STAKE = 100 * ONE_NECTAR
MIN_STAKE = 10 * ONE_NECTAR
PRICE = 10**12


def account(number: int) -> Address:
    return Signer(sha256(b"node %d" % number).digest()).address


def hashed(text: str) -> Hash32:
    return Hash32(sha256(text.encode()).digest())


def announced(number: int, span: Span, *, at: int, **changes: object) -> Announcement:
    """By node `number`, at `at` Unix milliseconds."""
    one = Announcement(
        network="petals", model_root=MODEL, span=span, account=account(number), peer_id=f"12D3KooW{number}",
        host=f"10.0.0.{number}", port=31330, cert_hash=hashed("certificate"), price_per_token_block=PRICE,
        numeric_class=NumericClass.FP32, wire_dtypes=("float32",), throughput=9_000 + 700 * number,
        kv_free_tokens=1, state=NodeState.ONLINE, issued_at=at, expires_at=at + DEFAULT_TTL_MS,
    )  # fmt: skip
    return replace(one, **changes)  # type: ignore[arg-type]


def audited(number: int, node: int, *, failed: bool = False, session: int = 1, at: int | None = None) -> AuditRecord:
    verdict = Verdict(Outcome.FAILED, (Reason("w16", 0.34, 1e-5),)) if failed else Verdict(Outcome.PASSED)
    return AuditRecord(
        evidence=hashed(f"evidence {number}"),
        node=account(node),
        session=session_id(session),
        head=hashed(f"head {number}"),
        span=THIRDS[node % 3],
        input_digest=hashed(f"input {number}"),
        beacon=hashed("beacon"),
        calibration=hashed("calibration"),
        statistics=Statistics(40, 0.34 if failed else 3.1e-7),
        verdict=verdict,
        audited_at=UnixTime(int(time.time()) - 60 if at is None else at),
    )


@dataclass
class FakeNetwork:
    """The sources, and the nodes that are asked: `dead` ones do not answer. `now` is the wall clock, in seconds."""

    announcements: list[Announcement] = field(default_factory=list)
    events: list[Indexed] = field(default_factory=list)
    audits: tuple[AuditRecord, ...] = ()
    dead: set[Address] = field(default_factory=set)
    trouble: Exception | None = None

    @classmethod
    def of_thirds(cls) -> FakeNetwork:
        """Nodes 0 to 5 serve a third each, twice over, and have staked; two were audited, one was paid."""
        world = cls()
        for number in range(6):
            world.announce(number, THIRDS[number % 3])
            world.happen(on_chain.NodeRegistered(account(number), ZERO_ADDRESS, b"", STAKE))
        world.audits = (audited(1, 0), audited(2, 1), audited(3, 2, session=2))
        world.paid(0, 3 * 10**16)
        return world

    def announce(self, number: int, span: Span, **changes: object) -> None:
        one = announced(number, span, at=int(time.time() * 1000), **changes)
        self.announcements = [each for each in self.announcements if each.account != one.account] + [one]

    def happen(self, event: on_chain.Event) -> None:
        block = len(self.events) + 1
        tx = hashed(f"transaction {block}")
        self.events.append(Indexed(event, block, hashed(f"block {block}"), 0, ZERO_ADDRESS, tx))

    def paid(self, number: int, amount: int) -> None:
        tranche = TrancheId(hashed(f"tranche {len(self.events)}"))
        payer = account(99)
        self.happen(on_chain.Deposited(payer, payer, ONE_NECTAR))
        self.happen(on_chain.TrancheOpened(tranche, payer, payer, hashed("root"), ONE_NECTAR, 2**40, 2**41))
        head = hashed("receipt")
        self.happen(on_chain.VoucherRedeemed(tranche, account(number), amount, amount // 100, amount, head))

    def convict(self, number: int, *, dispute: int = 1, uri: str = "") -> None:
        """A jury finds the node faulty: its stake is gone and it is out for good."""
        node, receipt = account(number), hashed(f"receipt {dispute}")
        self.happen(on_chain.DisputeOpened(dispute, node, account(50), receipt, hashed("evidence"), uri))
        self.happen(on_chain.JuryCalled(dispute, 0, account(50), ONE_NECTAR, 2))
        for juror in (51, 52):
            self.happen(on_chain.JurorDrawn(dispute, 0, account(juror), 1))
        for juror in (51, 52):
            self.happen(on_chain.VoteRevealed(dispute, 0, account(juror), 2, 1))
        self.happen(on_chain.NodeSlashed(node, STAKE, account(60), STAKE // 2, receipt))
        self.happen(on_chain.NodeJailed(node, FOR_GOOD))
        self.happen(on_chain.DisputeConcluded(dispute, 2, STAKE, 10**16, ONE_NECTAR))

    # What the explorer asks

    async def announced(self) -> list[Announcement]:
        self._fail()
        return list(self.announcements)

    async def chain(self) -> ChainSight:
        self._fail()
        return ChainSight(Ledger(self.events), len(self.events), MIN_STAKE)

    async def shelf(self) -> Shelf:
        self._fail()
        return shelf_of(self.audits, {})

    async def info(self, node: Announcement, *, seconds: float) -> Info:
        await asyncio.sleep(0)
        if node.account in self.dead:
            raise PeerUnreachable("nobody there", peer=node.account)
        return Info(MODEL, node.span.start, node.span.end, amount(PRICE), 2, 0, 1, 1, 1, False)

    def _fail(self) -> None:
        if self.trouble is not None:
            raise self.trouble


def explorer(world: FakeNetwork, *, about: About | None = None, playground: Playground | None = None) -> FastAPI:
    told = about or About("petals", 1337, "smollm2-135m-instruct", MODEL.hex(), BLOCKS)
    return create_app(Watch(told, world, world, clock=time.time, monotonic=time.monotonic), playground)


@asynccontextmanager
async def served(app: FastAPI, *, port: int = 0) -> AsyncIterator[str]:
    """Its address, while it runs as `validator explorer` runs it."""
    with listen("127.0.0.1", port) as bound:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        running = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
