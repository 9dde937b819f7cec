"""One session: its steps in order, one at a time, each paid for, computed, and sent on.

Everything here runs on the event loop, except what `Workbench` does on the compute thread. Nothing a session does or
suffers reaches another one: what goes wrong becomes a Fault to its own client.
"""

from __future__ import annotations

from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import structlog

from corolla_core.protocol.errors import (
    CorollaError,
    NetworkError,
    OutOfCapacity,
    PeerUnreachable,
    PositionMismatch,
    ServingError,
    SessionClosed,
    VoucherTooSmall,
    to_wire,
)
from corolla_core.protocol.ids import Hash32, address
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.messages import AnyMessage, Endpoint, Fault, Receipt, Rewire, Rewired, Step
from corolla_node.bookkeeper import SessionEntry
from corolla_node.desk import Desk
from corolla_node.kv_pool import Lease
from corolla_node.links import Outlet
from corolla_node.ports import Blocks, Link
from corolla_node.receipts import Piece
from corolla_node.scheduler import Job, Pending, StepJob
from corolla_node.signatory import Signatory
from corolla_node.steps import REPLAY, Action, Agreement, check_shape, decide, tokens_of
from corolla_node.trace import SessionTrace
from corolla_node.workbench import Computed, Outgoing, Workbench

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    step: Step
    payload: memoryview
    received: float
    lease: Lease
    paying: float = 0.0


class Session:
    """`client` is where Results, receipts and Faults go; set it anew when the client comes back on another link."""

    def __init__(
        self,
        desk: Desk,
        agreed: Agreement,
        blocks: Blocks,
        *,
        client: Link,
        downstream: Endpoint | None,
        weight_root: Hash32,
        lease: Lease,
        on_ended: Callable[[Session, str], object],
        trace: SessionTrace | None = None,
    ) -> None:
        """Raises OutOfCapacity when no further peer can be dialed."""
        self.agreed = agreed
        self.client = client
        self.upstream = agreed.upstream
        self.orphaned: TimerHandle | None = None
        self._used_at = desk.loop.time()
        self._desk = desk
        self._charged = 0
        self._tokens = 0
        self._idle = desk.loop.call_later(self._idle_grace, self._check_idle)
        self._lease = lease
        self._on_ended = on_ended
        self._trace = trace
        payer = desk.paybook.payer(agreed.tranche_id)
        self._bench = Workbench(blocks, agreed, prefixes=desk.prefixes, payer=payer)
        self._receipts = Signatory(desk, agreed, weight_root, tell=self.tell, forward=self._forward, fault=self.fault)
        self._queue: deque[_Waiting | Rewire] = deque()
        self._queued_bytes = 0
        self._job: StepJob[Computed] | Job[list[Outgoing]] | None = None
        self._last_step = 0
        self._parked: TimerHandle | None = None
        self._owed: VoucherTooSmall | None = None
        self._closed = False
        self._outlet = desk.links.outlet(downstream, self._outlet_lost) if downstream is not None else None
        desk.bookkeeper.session(SessionEntry(agreed))

    # What the server calls

    def submit(self, step: Step, payload: memoryview, received: float) -> None:
        """Take a step in. A refusal goes to the client as a Fault."""
        try:
            check_shape(step, self.agreed, max_step_tokens=self._desk.policy.max_step_tokens)
            free = self._desk.policy.session_queue - self._queued_bytes
            if payload.nbytes > free:
                raise OutOfCapacity("too much is waiting in this session", needed=payload.nbytes, free=free)
            lease = self._desk.inbox.reserve(payload.nbytes)
        except CorollaError as error:
            self.fault(error, step.step)
            return
        self._queued_bytes += payload.nbytes
        self._queue.append(_Waiting(step, payload, received, lease))
        self._pump()

    def rewire(self, rewire: Rewire) -> None:
        """Change the neighbours, once the steps before it are done; then replay kept rows to the new one."""
        if len(self._queue) >= 4096:
            self.fault(OutOfCapacity("too much is waiting in this session", needed=1, free=0))
            return
        self._queue.append(rewire)
        self._pump()

    def paid(self) -> None:
        """A voucher came for this session's tranche."""
        if self._parked is not None:
            self._pump()

    def upstream_signed(self, receipt: Receipt) -> None:
        """The node before has signed for rows it sent."""
        self._receipts.heard(receipt)

    def tell(self, message: AnyMessage) -> None:
        """Send to the client, if it can be reached."""
        with suppress(NetworkError):
            self.client.send(message)

    def fault(self, error: CorollaError, step: int | None = None) -> None:
        self._desk.metrics.refused(error)
        self.tell(Fault(to_wire(error), self.agreed.session, step))

    def close(self, reason: str) -> Future[None] | None:
        """Give everything back; memory in use by the compute thread follows when it lets go.

        Returns what to wait for where receipts are still being signed.
        """
        if self._closed:
            return None
        self._closed = True
        self._idle.cancel()
        self._unpark()
        if self.orphaned is not None:
            self.orphaned.cancel()
        for item in self._queue:
            if isinstance(item, _Waiting):
                self._let_in(item)
        self._queue.clear()
        if self._job is None:
            self._lease.release()
        else:
            self._job.cancelled = True
        self._desk.bookkeeper.session(SessionEntry(self.agreed, (self._tokens, Nectar(self._charged), reason)))
        if self._trace is not None:
            self._trace.end(reason, tokens=self._tokens)
        last_receipts, outlet = self._receipts.close(), self._outlet
        if outlet is not None and last_receipts is not None:
            last_receipts.add_done_callback(lambda _: outlet.release())
        elif outlet is not None:
            outlet.release()
        return last_receipts

    # The queue

    def _pump(self) -> None:
        """Begin what can begin: at most one step or replay is under way."""
        while self._queue and self._job is None and not self._closed:
            item = self._queue[0]
            try:
                if isinstance(item, Rewire):
                    self._queue.popleft()
                    self._turn(item)
                elif not self._begin(item):
                    return
            except CorollaError as error:
                if isinstance(item, _Waiting):
                    self._unpark()  # else its timer would drop whatever comes to wait after it
                    self._queue.popleft()
                    self._let_in(item)
                self.fault(error, item.step.step if isinstance(item, _Waiting) else None)

    def _begin(self, item: _Waiting) -> bool:
        """Answer or start the first step; False when it is parked for payment."""
        step = item.step
        action = decide(step, last_step=self._last_step, length=self._bench.length)
        if self._outlet is not None and self._outlet.error is not None:
            raise _unreachable(self._outlet)
        if action is Action.ANSWER:
            self._queue.popleft()
            self._let_in(item)
            self._deliver(self._bench.answer(step, last=self._outlet is None))
            return True
        cost = self.agreed.cost(tokens_of(step))
        asked = perf_counter()
        try:
            self._desk.paybook.hold(self.agreed.tranche_id, cost, credit=self.agreed.credit)
        except VoucherTooSmall as error:
            self._park(error)
            return False
        item.paying = perf_counter() - asked
        self._unpark()
        self._queue.popleft()
        job = self._bench.job(
            step, item.payload, last=self._outlet is None, done=lambda job: self._computed(job, item, cost)
        )
        self._job = job
        self._desk.scheduler.submit_step(job, decode=tokens_of(step) == 1)
        return True

    def _computed(self, job: Pending[Computed], item: _Waiting, cost: Nectar) -> None:
        back = perf_counter()
        self._job = None
        done = job.result
        if done is None:
            self._not_computed(job, item, cost)
            return
        if done.outgoing is not None and not self._closed:
            self._deliver(done.outgoing)
        sent = perf_counter()
        # The next node is at work already; what follows costs nobody a wait.
        self._desk.paybook.charge(self.agreed.tranche_id, cost)
        self._charged += cost
        self._tokens += tokens_of(item.step) * self.agreed.batch
        self._used_at = self._desk.loop.time()
        self._let_in(item)
        self._last_step = max(self._last_step, item.step.step)
        self._record(item, done, back, sent)
        if self._closed:
            self._lease.release()
            return
        self._pump()

    def _not_computed(self, job: Pending[Computed], item: _Waiting, cost: Nectar) -> None:
        self._desk.paybook.let_go(self.agreed.tranche_id, cost)
        self._let_in(item)
        if self._closed:
            self._lease.release()
        elif isinstance(job.error, CorollaError):
            self.fault(job.error, item.step.step)
            self._pump()
        else:
            self._broken(job.error, item.step.step)

    @property
    def _idle_grace(self) -> float:
        """What was never paid for may not be held for long; a step that is refused does not count as use."""
        policy = self._desk.policy
        return policy.idle_grace if self._tokens else min(policy.idle_grace, policy.first_step_grace)

    def _check_idle(self) -> None:
        """Memory is reserved for the session whether it is used or not: one that is not used must end."""
        left = self._used_at + self._idle_grace - self._desk.loop.time()
        if left > 0 or self._job is not None:
            self._idle = self._desk.loop.call_later(max(left, 1.0), self._check_idle)
            return
        self.fault(SessionClosed("no step came for too long"))
        self._on_ended(self, "idle")

    def _broken(self, error: BaseException | None, step: int | None) -> None:
        about = {"session": self.agreed.session, "peer": self.agreed.client, "span": str(self.agreed.span)}
        _log.error("a session broke", **about, error=str(error), exc_info=error)
        self.fault(ServingError("the session broke inside the node"), step)
        self._on_ended(self, "broken")

    # Payment

    def _park(self, owed: VoucherTooSmall) -> None:
        self._owed = owed
        if self._parked is None:
            self._parked = self._desk.loop.call_later(self._desk.policy.payment_grace, self._give_up)

    def _unpark(self) -> None:
        if self._parked is not None:
            self._parked.cancel()
        self._parked = self._owed = None

    def _give_up(self) -> None:
        """Nobody paid: refuse the step, and drop those behind it, which could not continue the session."""
        owed = self._owed
        self._unpark()
        first: _Waiting | None = None
        kept: list[_Waiting | Rewire] = []
        for item in self._queue:
            if isinstance(item, _Waiting):
                self._let_in(item)
                first = first or item
            else:
                kept.append(item)
        self._queue = deque(kept)
        if owed is not None and first is not None:
            self.fault(owed, first.step.step)
        self._pump()

    # Where outputs go

    def _deliver(self, outgoing: Outgoing | None) -> None:
        if outgoing is None:
            return
        # A lost peer is reported once, by its link; the rows are kept for whoever replaces it.
        with suppress(NetworkError):
            if self._outlet is None:
                self.client.send(outgoing.message, outgoing.payload)
            else:
                self._outlet.send(outgoing.message, outgoing.payload)

    def _outlet_lost(self, outlet: Outlet, error: NetworkError) -> None:
        if outlet is self._outlet and not self._closed:
            step = self._last_step or None
            self.fault(_unreachable(outlet), step)
            self._pump()  # what waits cannot be sent on, and is refused rather than left hanging

    def downstream_refused(self, peer: Link, error: CorollaError, step: int | None) -> None:
        """The next node sent a Fault up the line: to the client it is a node that cannot be used."""
        if self._outlet is not None and self._outlet.peer == peer.peer:
            self.fault(PeerUnreachable(f"the next node refused: {error}", peer=self._outlet.peer), step)

    def _turn(self, rewire: Rewire) -> None:
        if rewire.replay_to > self._bench.length:
            raise PositionMismatch("not that many rows yet", expected=self._bench.length, offered=rewire.replay_to)
        if rewire.upstream is not None:
            self.upstream = address(bytes(rewire.upstream))
            self._receipts.upstream_is(self.upstream)
        self._send_to(rewire.downstream)
        if rewire.replay_to == 0:
            self._confirm_rewired()
            return
        bench, last = self._bench, self._outlet is None
        job = Job(lambda: bench.replay(rewire.replay_to, last=last), self._replayed)
        self._job = job
        self._desk.scheduler.submit(job)

    def _send_to(self, downstream: Endpoint | None) -> None:
        """Change the outlet, unless it leads there already."""
        old = self._outlet
        if old is not None and old.error is None and old.endpoint == downstream:
            return
        if old is not None:
            old.release()
        self._outlet = None
        if downstream is not None:
            self._outlet = self._desk.links.outlet(downstream, self._outlet_lost)

    def _replayed(self, job: Pending[list[Outgoing]]) -> None:
        self._job = None
        if self._closed:
            self._lease.release()
        elif job.result is None:
            self._broken(job.error, None)
        else:
            for outgoing in job.result:
                self._deliver(outgoing)
            self._confirm_rewired()
            self._pump()

    def _confirm_rewired(self) -> None:
        confirm = Rewired(self.agreed.session)
        if self._outlet is None:
            self.tell(confirm)
        else:
            self._outlet.when_up(lambda: self.tell(confirm))

    # Books

    def _let_in(self, item: _Waiting) -> None:
        """The memory a waiting tensor took is free again."""
        self._queued_bytes -= item.payload.nbytes
        item.lease.release()

    def _record(self, item: _Waiting, done: Computed, back: float, sent: float) -> None:
        tokens = tokens_of(item.step)
        timing = done.timing(tokens * self.agreed.batch, item.received, item.paying, back, sent)
        self._desk.timings.add(timing, single=tokens == 1)
        self._desk.metrics.step(timing, single=tokens == 1)
        if self._trace is not None:
            self._trace.step(timing, pos=item.step.pos)
        t_in = int((self._desk.clock() - (sent - item.received)) * 1000)
        live, reorder = item.step.step != REPLAY, item.step.reorder
        order = None if reorder is None else tuple(reorder)
        self._receipts.add(Piece(item.step.pos, tokens, item.payload, done.rows, t_in, live, order))

    def _forward(self, receipt: Receipt) -> None:
        if self._outlet is not None:
            with suppress(NetworkError):
                self._outlet.send(receipt, None)


def _unreachable(outlet: Outlet) -> PeerUnreachable:
    """Never why: a client that names any host and port would learn which of them are open, and what answers there."""
    return PeerUnreachable("the next node cannot be reached", peer=outlet.peer)
