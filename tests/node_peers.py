"""Nodes and clients for tests: real servers over in-memory links and small fake blocks, no chain, no sockets."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import time
from typing import Any
from weakref import finalize

import torch
from fake_blocks import HIDDEN, FakeBlocks, FakeWeights

from corolla_core.model.tensors import from_wire, to_wire
from corolla_core.protocol.errors import (
    CorollaError,
    NetworkError,
    NonceReused,
    PeerUnreachable,
    TrancheUnknown,
)
from corolla_core.protocol.errors import (
    from_wire as error_from_wire,
)
from corolla_core.protocol.ids import (
    ZERO_HASH,
    Address,
    Hash32,
    ModelRoot,
    SessionId,
    TrancheId,
    address,
    address_bytes,
)
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import NumericClass, SignedReceipt
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumNode, SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher, Voucher, escrow_domain
from corolla_core.store.kept_rows import Place
from corolla_core.swarm.messages import (
    AnyMessage,
    Branch,
    Endpoint,
    Fault,
    Open,
    Opened,
    Pay,
    Result,
    Step,
    Tensor,
    amount,
)
from corolla_node.archive import Archive
from corolla_node.bookkeeper import Batch, Bookkeeper
from corolla_node.desk import Desk, Policy
from corolla_node.kv_pool import KvPool
from corolla_node.links import Links
from corolla_node.paybook import Paybook
from corolla_node.ports import Blocks, Dialer, LinkHandler, Weights
from corolla_node.prefixes import Prefixes
from corolla_node.receipts import Issuer, signing_thread
from corolla_node.scheduler import Scheduler
from corolla_node.server import Offer, Server
from corolla_node.timings import StepTimings

DOMAIN = escrow_domain(1337, address("0x" + "e5" * 20))
MODEL = ModelRoot(b"m" * 32)
PRICE = 10
EXPIRES_IN = 24 * 3600


def signer(name: str) -> Signer:
    return Signer(sha256(name.encode()).digest())


@dataclass(frozen=True)
class FakeTranche:
    payer: Address
    signer: Address
    sum_node: SumNode
    expiry: UnixTime


@dataclass
class FakeChain:
    """The escrow's tranches; `down` makes every read fail."""

    known: dict[TrancheId, FakeTranche] = field(default_factory=dict)
    down: CorollaError | None = None
    reads: int = 0

    async def tranche(self, tranche_id: TrancheId) -> FakeTranche:
        await asyncio.sleep(0)
        self.reads += 1
        if self.down is not None:
            raise self.down
        if tranche_id not in self.known:
            raise TrancheUnknown(tranche_id=tranche_id)
        return self.known[tranche_id]


@dataclass
class FakeDisk:
    """What survives a node: a `write` for its bookkeeper, and its memory after a restart."""

    vouchers: dict[TrancheId, SignedVoucher] = field(default_factory=dict)
    charges: dict[TrancheId, Nectar] = field(default_factory=dict)
    receipts: list[Any] = field(default_factory=list)
    sessions: list[Any] = field(default_factory=list)
    nonces: set[bytes] = field(default_factory=set)
    places: dict[Hash32, Place] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(mkdtemp()))
    failing: CorollaError | None = None
    seconds: float = 0.0
    """that noting a nonce takes"""

    def __post_init__(self) -> None:
        finalize(self, rmtree, self.folder)

    async def write(self, batch: Batch) -> None:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        self.vouchers |= {tranche: entry.signed for tranche, entry in batch.vouchers.items()}
        self.charges |= batch.charges
        self.receipts += batch.receipts
        self.sessions += batch.sessions
        self.places |= dict(batch.places)

    @cached_property
    def archive(self) -> Archive:
        return Archive(self.folder, limit=2**24, clock=time)

    async def place(self, receipt: Hash32) -> Place | None:
        return self.places.get(receipt)

    async def best(self, tranche_id: TrancheId) -> SignedVoucher | None:
        return self.vouchers.get(tranche_id)

    async def claim_nonce(self, nonce: bytes, session: SessionId, client: Address) -> None:
        await asyncio.sleep(self.seconds)
        if nonce in self.nonces:
            raise NonceReused(nonce=nonce)
        self.nonces.add(nonce)

    async def receipts_after(self, t_out: int, after: Hash32, before: int, limit: int) -> list[SignedReceipt]:
        await asyncio.sleep(0)
        if self.failing is not None:
            raise self.failing
        mine = sorted((one for one in self.receipts if one.receipt.t_out < before), key=_place)
        return [one for one in mine if _place(one) > (t_out, after)][:limit]

    async def receipts_named(self, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        return [one for one in self.receipts if one.receipt.hash() in hashes]

    async def charged(self, tranche_id: TrancheId) -> Nectar:
        return self.charges.get(tranche_id, Nectar(0))


def _place(signed: SignedReceipt) -> tuple[int, bytes]:
    return signed.receipt.t_out, signed.receipt.hash()


class Pipe:
    """One end of an in-memory link."""

    def __init__(self, peer: Address, handler: LinkHandler) -> None:
        self.peer = peer
        self.closed = False
        self.far: Pipe
        self._handler = handler

    def send(self, message: AnyMessage, payload: Any = None) -> None:
        if self.closed:
            raise PeerUnreachable("closed", peer=self.peer)
        data = memoryview(bytes(payload)) if payload is not None else memoryview(b"")
        asyncio.get_running_loop().call_soon(self.far._arrive, message, data)

    def _arrive(self, message: AnyMessage, payload: memoryview) -> None:
        if not self.closed:
            self._handler.on_message(self, message, payload)

    def cut(self, error: NetworkError | None = None) -> None:
        for end in (self, self.far):
            if not end.closed:
                end.closed = True
                asyncio.get_running_loop().call_soon(end._handler.on_lost, end, error)

    async def close(self) -> None:
        self.cut()


def join(one: Address, handler_one: LinkHandler, two: Address, handler_two: LinkHandler) -> tuple[Pipe, Pipe]:
    """A link between two peers: (the end that `one` holds, the end that `two` holds)."""
    near, far = Pipe(two, handler_one), Pipe(one, handler_two)
    near.far, far.far = far, near
    return near, far


class World:
    """Everything that can be dialed. With a `dialer`, nodes dial their next nodes through that instead."""

    def __init__(self, *, dialer: Dialer | None = None) -> None:
        self._dialer = dialer
        self.chain = FakeChain()
        self.nodes: dict[bytes, FakeNode] = {}
        self.pipes: list[Pipe] = []

    def dialer(self, me: Address) -> Dialer:
        async def dial(endpoint: Endpoint, /, *, handler: LinkHandler) -> Pipe:
            await asyncio.sleep(0)
            return self.connect(me, handler, endpoint)

        return self._dialer or dial

    def connect(self, me: Address, handler: LinkHandler, endpoint: Endpoint) -> Pipe:
        node = self.nodes.get(bytes(endpoint.account))
        if node is None or node.dead:
            raise PeerUnreachable("nobody listens", peer=address(bytes(endpoint.account)))
        near, far = join(me, handler, node.account, node.gate or node.server)
        self.pipes += [near, far]
        return near

    def kill(self, node: FakeNode) -> None:
        """What `kill -9` looks like from outside: every link breaks."""
        node.dead = True
        for pipe in self.pipes:
            if pipe.peer == node.account:
                pipe.cut(PeerUnreachable("broken", peer=node.account))


@dataclass
class FakeNode:
    account: Address
    endpoint: Endpoint
    server: Server
    desk: Desk
    kv: KvPool
    blocks: Any
    disk: FakeDisk
    dead: bool = False
    gate: LinkHandler | None = None


@asynccontextmanager
async def running_node(
    world: World,
    name: str,
    span: Span,
    *,
    policy: Policy | None = None,
    kv_budget: int = 10**6,
    disk: FakeDisk | None = None,
    clock: Callable[[], float] = time,
    blocks: Blocks | None = None,
    weights: Weights | None = None,
    numeric_class: NumericClass = NumericClass.FP32,
) -> AsyncIterator[FakeNode]:
    """A node with fake blocks that serves until the block ends."""
    identity, disk, blocks = signer(name), disk or FakeDisk(), blocks or FakeBlocks(span)
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(loop)
    scheduler.start()
    bookkeeper = Bookkeeper(disk.write)
    signing = signing_thread()
    prefixes = Prefixes()
    async with asyncio.TaskGroup() as tasks:
        paybook = Paybook(
            payee=identity.address, domain=DOMAIN, tranches=world.chain, memory=disk, bookkeeper=bookkeeper, clock=clock
        )
        kv = KvPool(kv_budget, spare=prefixes.limit)
        desk = Desk(
            loop=loop,
            policy=policy or Policy(payment_grace=0.2, orphan_grace=0.2),
            scheduler=scheduler,
            paybook=paybook,
            bookkeeper=bookkeeper,
            memory=disk,
            archive=disk.archive,
            links=Links(world.dialer(identity.address), tasks, linger=0.1),
            inbox=KvPool(64 * 2**20),
            prefixes=prefixes,
            timings=StepTimings(),
            signing=signing,
            issuer=Issuer(identity, 1337, 0, MODEL, numeric_class),
            clock=clock,
        )
        offer = Offer(
            identity.address,
            MODEL,
            blocks,
            lambda part: Hash32(sha256(str(part).encode()).digest()),
            numeric_class,
            Price(PRICE),
            weights or FakeWeights(span),
        )
        server = Server(offer, desk, kv=kv, tasks=tasks)
        endpoint = Endpoint(address_bytes(identity.address), name, 1, b"c" * 32, "")
        node = FakeNode(identity.address, endpoint, server, desk, kv, blocks, disk)
        world.nodes[bytes(endpoint.account)] = node
        writer = tasks.create_task(bookkeeper.run())
        try:
            yield node
        finally:
            await server.drain(0)
            await desk.links.close()
            await bookkeeper.stop()
            await writer
            await loop.run_in_executor(None, scheduler.stop)
            signing.shutdown()
            server.close()
            disk.archive.close()
            disk.failing = None


class FakeClient:
    """A client that sends what a test tells it to, and keeps what comes back in order."""

    def __init__(
        self, world: World, nodes: list[FakeNode], *, name: str = "client", caps: int = 10**6, dialed: bool = True
    ) -> None:
        self.world = world
        self.nodes = nodes
        self.signer = signer(name)
        self.received: list[tuple[Pipe, AnyMessage, memoryview]] = []
        self.lost: list[Pipe] = []
        self._news = asyncio.Event()
        self._read = 0
        self.session = sha256(name.encode()).digest()[:16]
        self.tranche_id = TrancheId(sha256(b"tranche" + name.encode()).digest())
        self.tree = SumTree([Leaf(node.account, Nectar(caps)) for node in nodes])
        self.caps = caps
        world.chain.known[self.tranche_id] = FakeTranche(
            self.signer.address, self.signer.address, self.tree.root, UnixTime(int(time()) + EXPIRES_IN)
        )
        self.pipes = [self.dial(node) for node in nodes] if dialed else []

    def dial(self, node: FakeNode) -> Pipe:
        return self.world.connect(self.signer.address, self, node.endpoint)

    def on_message(self, conn: Any, message: AnyMessage, payload: memoryview) -> None:
        self.received.append((conn, message, payload))
        self._news.set()

    def on_lost(self, conn: Any, error: NetworkError | None) -> None:
        self.lost.append(conn)
        self._news.set()

    async def expect(self, kind: type[Any], *, seconds: float = 5.0) -> tuple[Any, memoryview]:
        """The next message of a kind, skipping others. Fails on a Fault where none was asked for."""
        async with asyncio.timeout(seconds):
            while True:
                while self._read < len(self.received):
                    _conn, message, payload = self.received[self._read]
                    self._read += 1
                    if isinstance(message, kind):
                        return message, payload
                    if isinstance(message, Fault):
                        raise error_from_wire(message.error)
                self._news.clear()
                await self._news.wait()

    async def expect_fault(self, *, seconds: float = 5.0) -> tuple[CorollaError, Fault]:
        fault, _ = await self.expect(Fault, seconds=seconds)
        return error_from_wire(fault.error), fault

    def open_message(self, index: int, **changes: Any) -> Open:
        proof = self.tree.proof(index)
        node = self.nodes[index]
        values: dict[str, Any] = {
            "session": self.session,
            "model_root": MODEL,
            "start": node.blocks.span.start,
            "end": node.blocks.span.end,
            "batch": 1,
            "max_tokens": 64,
            "wire_dtype": "float32",
            "chunk_tokens": 8,
            "price": amount(PRICE),
            "tranche_id": self.tranche_id,
            "cap": amount(self.caps),
            "branch": Branch(proof.index, [(s.hash, amount(s.sum)) for s in proof.siblings]),
            "client_nonce": secrets.token_bytes(32),
            "upstream": address_bytes(self.nodes[index - 1].account) if index else None,
            "downstream": self.nodes[index + 1].endpoint if index + 1 < len(self.nodes) else None,
        }
        return Open(**(values | changes))

    async def open(self, **changes: Any) -> list[Opened]:
        """Open the session on every node of the route."""
        for index, pipe in enumerate(self.pipes):
            pipe.send(self.open_message(index, **changes))
        return [(await self.expect(Opened))[0] for _ in self.pipes]

    def voucher(self, node: FakeNode, cumulative: int, *, by: Signer | None = None) -> Pay:
        voucher = Voucher(self.tranche_id, node.account, Nectar(cumulative), ZERO_HASH)
        signed = voucher.sign(DOMAIN, by or self.signer)
        return Pay(self.tranche_id, amount(cumulative), ZERO_HASH, signed.signature)

    def pay(self, cumulative: int) -> None:
        """The same cumulative amount to every node."""
        for node, pipe in zip(self.nodes, self.pipes, strict=True):
            pipe.send(self.voucher(node, cumulative))

    def step(self, number: int, pos: int, hidden_BTD: torch.Tensor, *, via: Pipe | None = None, **changes: Any) -> None:
        dtype, shape, payload = to_wire(hidden_BTD)
        values: dict[str, Any] = {"keep": 1} | changes
        (via or self.pipes[0]).send(Step(self.session, number, pos, Tensor(dtype, list(shape)), **values), payload)

    async def result(self) -> torch.Tensor:
        message, payload = await self.expect(Result)
        return from_wire(message.tensor.dtype, message.tensor.shape, payload, expect_shape=(None, None, HIDDEN)).clone()


def inputs(tokens: int, *, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, tokens, HIDDEN, generator=torch.Generator().manual_seed(seed))


def expected(spans: list[Span], hidden_BTD: torch.Tensor) -> torch.Tensor:
    """What a route over fake blocks gives for a whole sequence at once."""
    for span in spans:
        blocks = FakeBlocks(span)
        hidden_BTD = blocks.forward(hidden_BTD, blocks.new_cache(hidden_BTD.shape[0], 1))
    return hidden_BTD


async def until(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Returns when the condition holds; TimeoutError when it does not come to."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- any condition, of code that knows nothing of tests
            await asyncio.sleep(0.005)
