"""The node towards its peers: every message they can send, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import structlog

from corolla_core.model.tensors import WIRE_DTYPES
from corolla_core.protocol.errors import (
    CorollaError,
    Draining,
    InvalidInput,
    NetworkError,
    NotServed,
    OutOfCapacity,
    PeerMisbehaved,
    SessionUnknown,
    from_wire,
    to_wire,
)
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, SessionId, TrancheId, address
from corolla_core.protocol.opening import check_row_size
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import NumericClass, WireDtype
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumNode, SumProof
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.frame import DTYPE_BYTES
from corolla_core.swarm.messages import (
    MAX_CHUNK_ROWS,
    AnyMessage,
    Ask,
    AskNamed,
    AskOpening,
    AskPossession,
    AskReceipts,
    Branch,
    Close,
    Closed,
    Fault,
    Info,
    Open,
    Opened,
    Paid,
    Pay,
    Receipt,
    Rewire,
    Step,
    amount,
)
from corolla_node import ledger
from corolla_node.desk import Desk
from corolla_node.errands import Errands
from corolla_node.feed import Feed
from corolla_node.kept_rows import kept_bytes
from corolla_node.kv_pool import KvPool, Share
from corolla_node.openings import Openings
from corolla_node.ports import Blocks, Link, Weights
from corolla_node.possession import Possessions
from corolla_node.session import Session
from corolla_node.steps import Agreement
from corolla_node.trace import SessionTrace

_log = structlog.get_logger(__name__)
_MAX_OPENING = 64
_MAX_OPENING_EACH = 8
"""Sessions being opened, in all and of one client: each makes the node ask the chain before anything was paid."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What this node serves, and at what price. `weight_root` gives the root of any part of its span, `weights` what it
    is the root of."""

    account: Address
    model_root: ModelRoot
    blocks: Blocks
    weight_root: Callable[[Span], Hash32]
    numeric_class: NumericClass
    price: Price
    weights: Weights


class Server:
    """The `Handler` of the node's listener and of the links it dials.

    It answers every message with what was asked or with a Fault that carries a typed error; it raises nothing.
    """

    def __init__(self, offer: Offer, desk: Desk, *, kv: KvPool, tasks: asyncio.TaskGroup) -> None:
        self._offer = offer
        self._desk = desk
        desk.links.handler = self
        self._kv = kv
        self._tasks = Errands(tasks)
        self._openings = Openings(desk.archive, desk.memory.place, tasks=self._tasks, clock=desk.loop.time)
        self._possessions = Possessions(
            offer.account, offer.model_root, offer.weights, tasks=self._tasks, clock=desk.loop.time
        )
        self._sessions: dict[SessionId, Session] = {}
        self._ending: dict[SessionId, Session] = {}
        self._last_receipts: set[asyncio.Future[None]] = set()
        self._opening: Counter[Address] = Counter()
        self._feed = Feed(desk.memory, desk.clock)
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def kv_free_tokens(self) -> int:
        """How many positions of one sequence a new client can have, with the rows that are kept of them."""
        blocks = self._offer.blocks
        each = blocks.kv_bytes(1, 1) + max(
            kept_bytes(1, 1, blocks.hidden_size, dtype) for dtype in WIRE_DTYPES.values()
        )
        return min(self._kv.free, self._share.size) // each

    @property
    def _share(self) -> Share:
        return self._desk.policy.share(self._kv.total)

    def info(self) -> Info:
        span = self._offer.blocks.span
        return Info(
            self._offer.model_root,
            span.start,
            span.end,
            amount(self._offer.price.per_token_block),
            self.sessions,
            self._desk.scheduler.queued,
            self._kv.free,
            self._kv.total,
            self._desk.timings.tokens,
            self.draining,
        )

    def on_message(self, conn: Link, message: AnyMessage, payload: memoryview) -> None:
        received = perf_counter()
        session = getattr(message, "session", None)
        try:
            match message:
                case Step():
                    self._step(conn, message, payload, received)
                case Pay():
                    self._pay(conn, message)
                case Open():
                    self._begin_open(conn, message)
                case Receipt():
                    self._receipt(conn, message)
                case Rewire():
                    self._of_client(conn, message.session).rewire(message)
                case Close():
                    self._close(conn, message)
                case AskOpening():
                    self._openings.ask(conn, message)
                case AskPossession():
                    self._possessions.ask(conn, message)
                case Ask():
                    conn.send(self.info())
                case AskReceipts() | AskNamed():
                    self._tasks.create_task(self._feed.answer(conn, message))
                case Fault():
                    self._fault(conn, message)
                case _:
                    raise PeerMisbehaved(f"a node does not take {type(message).__name__}", peer=conn.peer)
        except CorollaError as error:
            self._refuse(conn, error, session, getattr(message, "step", None))
        except Exception:
            kind = type(message).__name__
            _log.exception("a message could not be handled", peer=conn.peer, session=session, kind=kind)
            self._refuse(conn, InvalidInput("the node could not handle this message"), session, None)

    def on_lost(self, conn: Link, error: NetworkError | None) -> None:
        self._desk.links.lost(conn, error)
        for session in self._sessions.values():
            if session.client is conn:
                self._orphan(session)

    def close(self) -> None:
        """Once nobody can ask any more. Waits for what is being read from the disk."""
        self._openings.close()
        self._possessions.close()

    async def drain(self, patience: float, reason: str = "the node is shutting down") -> None:
        """Take no new session; return when the last has ended, or end them after `patience` seconds. All receipts have
        been signed then."""
        self.draining = True
        try:
            async with asyncio.timeout(patience):
                await self._empty.wait()
        except TimeoutError:
            sessions = list(self._sessions.values())
            for session in sessions:
                session.fault(Draining(reason))
            await asyncio.gather(*(self._end(session, "drained") for session in sessions))
        if self._last_receipts:  # also of sessions that were dropped before, and wait for their upstream's
            await asyncio.wait(self._last_receipts)

    # Sessions

    def _begin_open(self, conn: Link, message: Open) -> None:
        if self._opening.total() >= _MAX_OPENING or self._opening[conn.peer] >= _MAX_OPENING_EACH:
            raise OutOfCapacity("too many sessions are being opened", needed=1, free=0)
        self._check_open(message)
        self._opening[conn.peer] += 1
        self._tasks.create_task(self._open(conn, message))

    async def _open(self, conn: Link, message: Open) -> None:
        span = f"{message.start}:{message.end}"
        structlog.contextvars.bind_contextvars(session=message.session, peer=conn.peer, span=span)  # of this task
        try:
            conn.send(await self._admit(conn, message))
        except CorollaError as error:
            self._refuse(conn, error, message.session, None)
        except Exception:
            _log.exception("a session could not be opened")
            self._refuse(conn, InvalidInput("the session could not be opened"), message.session, None)
        finally:
            self._opening[conn.peer] -= 1
            self._opening += Counter()  # drops who has none left
        opened = self._sessions.get(SessionId(message.session))
        if opened is not None and opened.client is conn and conn.closed:
            self._orphan(opened)

    def _check_open(self, message: Open) -> None:
        offer = self._offer
        if self.draining:
            raise Draining("the node is shutting down")
        if message.model_root != offer.model_root or Span(message.start, message.end) not in offer.blocks.span:
            raise NotServed(f"this node serves blocks {offer.blocks.span} of model 0x{offer.model_root.hex()}")
        if message.wire_dtype not in offer.numeric_class.wires:
            raise InvalidInput(f"no wire dtype {message.wire_dtype!r} at a node of class {offer.numeric_class}")
        if message.batch * message.chunk_tokens > MAX_CHUNK_ROWS:
            raise InvalidInput(f"at most {MAX_CHUNK_ROWS} sequences times tokens of a chunk")
        width = WireDtype(message.wire_dtype).width(offer.blocks.hidden_size)
        check_row_size(message.batch * width * DTYPE_BYTES[message.wire_dtype])
        if message.chunk_tokens > self._desk.policy.max_chunk_tokens:
            raise InvalidInput(f"at most {self._desk.policy.max_chunk_tokens} tokens a chunk")
        if len(self._sessions) >= self._desk.policy.max_sessions:
            raise OutOfCapacity("too many sessions", needed=1, free=0)
        if SessionId(message.session) in self._sessions:
            raise InvalidInput("this session id is taken")
        ledger.check_price(asked=offer.price, offered=_price(message))

    async def _admit(self, conn: Link, message: Open) -> Opened:
        offer, tranche_id = self._offer, TrancheId(message.tranche_id)
        leaf = Leaf(offer.account, Nectar(int.from_bytes(message.cap, "big")))
        account = await self._desk.paybook.enroll(tranche_id, leaf, _proof(message.branch))
        self._check_open(message)  # again: the chain took its time
        span = Span(message.start, message.end)
        blocks = offer.blocks if span == offer.blocks.span else offer.blocks.sub(span)
        agreed = Agreement(
            session=SessionId(message.session),
            client=conn.peer,
            upstream=address(bytes(message.upstream)) if message.upstream is not None else None,
            span=span,
            batch=message.batch,
            max_tokens=message.max_tokens,
            hidden=blocks.hidden_size,
            wire_dtype=WireDtype(message.wire_dtype),
            chunk_tokens=message.chunk_tokens,
            price=_price(message),
            tranche_id=tranche_id,
            client_nonce=message.client_nonce,
        )
        self._desk.paybook.check_means(tranche_id, agreed.cost(min(agreed.chunk_tokens, agreed.max_tokens)))
        kept = kept_bytes(agreed.batch, agreed.max_tokens, agreed.width, WIRE_DTYPES[agreed.wire_dtype])
        lease = self._kv.reserve(
            blocks.kv_bytes(agreed.batch, agreed.max_tokens) + kept,
            holders={conn.peer, self._desk.paybook.payer(tranche_id)},
            share=self._share,
        )
        root = offer.weight_root(span)
        try:
            # On disk before a receipt can be signed under it; and only now, so that who is refused writes nothing.
            await self._desk.memory.claim_nonce(agreed.client_nonce, agreed.session, agreed.client)
            self._check_open(message)
            self._sessions[agreed.session] = Session(
                self._desk,
                agreed,
                blocks,
                client=conn,
                downstream=message.downstream,
                weight_root=root,
                lease=lease,
                on_ended=self._drop,
                trace=self._trace(message, conn.peer),
            )
        except BaseException:
            lease.release()
            raise
        self._empty.clear()
        return Opened(agreed.session, root, offer.numeric_class.value, amount(account.paid), amount(account.charged))

    def _trace(self, message: Open, client: Address) -> SessionTrace | None:
        if self._desk.tracing is None:
            return None
        about = {"session": message.session.hex(), "blocks": f"{message.start}:{message.end}"}
        traced = self._desk.tracing.join(
            message.traceparent, "corolla.node.session", client=client, account=self._offer.account, **about
        )
        return None if traced is None else SessionTrace(traced)

    def _step(self, conn: Link, step: Step, payload: memoryview, received: float) -> None:
        session = self._sessions.get(SessionId(step.session))
        if session is None:
            raise SessionUnknown("no such session here", session_id=step.session)
        if conn.peer == session.agreed.client:
            self._adopt(session, conn)
        elif conn.peer != session.upstream:
            raise PeerMisbehaved("neither the client nor the node before", peer=conn.peer)
        session.submit(step, payload, received)

    def _close(self, conn: Link, message: Close) -> None:
        session = self._of_client(conn, message.session)
        self._tasks.create_task(self._close_politely(session))

    async def _close_politely(self, session: Session) -> None:
        await self._end(session, "closed")
        session.tell(Closed(session.agreed.session))

    async def _end(self, session: Session, reason: str) -> None:
        last_receipt = self._drop(session, reason)
        if last_receipt is not None:
            await last_receipt

    def _drop(self, session: Session, reason: str) -> asyncio.Future[None] | None:
        if self._sessions.get(session.agreed.session) is session:
            del self._sessions[session.agreed.session]
        if not self._sessions:
            self._empty.set()
        last_receipts = session.close(reason)
        if last_receipts is not None:
            # Its upstream's last receipt may still be on its way, and its own last one waits for that.
            self._ending[session.agreed.session] = session
            last_receipts.add_done_callback(lambda _: self._ended(session))
            self._last_receipts.add(last_receipts)
            last_receipts.add_done_callback(self._last_receipts.discard)
        return last_receipts

    def _ended(self, session: Session) -> None:
        if self._ending.get(session.agreed.session) is session:
            del self._ending[session.agreed.session]

    def _of_client(self, conn: Link, session_id: bytes) -> Session:
        session = self._sessions.get(SessionId(session_id))
        if session is None or session.agreed.client != conn.peer:
            raise SessionUnknown("no such session of yours here", session_id=session_id)
        self._adopt(session, conn)
        return session

    def _adopt(self, session: Session, conn: Link) -> None:
        """The client speaks: it is no orphan, and this is where to answer."""
        session.client = conn
        if session.orphaned is not None:
            session.orphaned.cancel()
            session.orphaned = None

    def _orphan(self, session: Session) -> None:
        if session.orphaned is None:
            grace = self._desk.policy.orphan_grace
            session.orphaned = self._desk.loop.call_later(grace, self._drop, session, "orphaned")

    # Money, faults

    def _pay(self, conn: Link, pay: Pay) -> None:
        began = perf_counter()

        def saved(cumulative: Nectar) -> None:
            with suppress(NetworkError):
                conn.send(Paid(pay.tranche_id, amount(cumulative)))

        if self._desk.paybook.accept(pay, saved):
            for session in list(self._sessions.values()):
                if session.agreed.tranche_id == pay.tranche_id:
                    session.paid()
        self._desk.timings.add_voucher(perf_counter() - began)
        self._desk.metrics.voucher()

    def _receipt(self, conn: Link, receipt: Receipt) -> None:
        """The upstream's. Whoever else sends one is refused without naming a session: a node would take that for its
        next one's refusal to go on."""
        key = SessionId(receipt.session)
        session = self._sessions.get(key) or self._ending.get(key)
        if session is None:
            self._refuse(conn, SessionUnknown("no such session here", session_id=receipt.session), None, None)
        elif conn.peer != session.upstream:
            self._refuse(conn, PeerMisbehaved("not the node before", peer=conn.peer), None, None)
        else:
            session.upstream_signed(receipt)

    def _fault(self, conn: Link, fault: Fault) -> None:
        session = self._sessions.get(SessionId(fault.session)) if fault.session is not None else None
        if session is not None:
            session.downstream_refused(conn, from_wire(fault.error), fault.step)

    def _refuse(self, conn: Link, error: CorollaError, session: bytes | None, step: object) -> None:
        number = step if isinstance(step, int) else None
        self._desk.metrics.refused(error)
        with suppress(NetworkError):
            conn.send(Fault(to_wire(error), session, number))


def _price(message: Open) -> Price:
    return Price(int.from_bytes(message.price, "big"))


def _proof(branch: Branch) -> SumProof:
    siblings = tuple(SumNode(Hash32(hash_), int.from_bytes(total, "big")) for hash_, total in branch.siblings)
    return SumProof(branch.index, siblings)
