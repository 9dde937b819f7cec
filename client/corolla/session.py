"""One session over the swarm: hidden states in, hidden states out, whatever happens to the nodes in between.

A step is ordered from every node (which the wallet may refuse), paid ahead where a node would not begin unpaid, sent
to the first node, and answered by the last. Steps not answered yet are kept; when the chain is repaired they go out
again under their old numbers, so that nodes that did them already answer from what they kept and charge nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import structlog
import torch
from torch import Tensor

from corolla import blame
from corolla.blame import Complaints, Ignore, PayUp, Replace, Report, SendAgain
from corolla.hop import Hop, order_step, pay, pay_message, set_aside
from corolla.links import Links
from corolla.node_usage import usage_of
from corolla.peers import Peers
from corolla.pending import Pending
from corolla.pipeline import Pipeline
from corolla.policy import Policy, Shape
from corolla.prefill import prefill_steps
from corolla.values import NodeUsage, RouteHop
from corolla.wallet import Wallet
from corolla_core.config.tracing import Traced
from corolla_core.model.tensors import to_wire
from corolla_core.protocol.errors import (
    CorollaError,
    InvalidInput,
    NetworkError,
    PeerMisbehaved,
    PeerTimeout,
    PositionMismatch,
    SessionClosed,
)
from corolla_core.protocol.errors import (
    from_wire as error_from_wire,
)
from corolla_core.protocol.ids import Address, Hash32, SessionId
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.reordering import Reordering
from corolla_core.protocol.span import Span
from corolla_core.swarm import messages
from corolla_core.swarm.messages import AnyMessage, Closed, Fault, Opened, Result, Rewired, Step

_log = structlog.get_logger(__name__)

REPLAY = 0
CLOSE_SECONDS = 1.0

InputRows = Callable[[int, int], Awaitable[Tensor]]
"""The inputs `[batch, stop - start, hidden]` of positions `[start, stop)` once more, in wire dtype."""


class Session:
    """`forward` is for one caller at a time. `position` is how many positions the nodes hold."""

    def __init__(
        self,
        *,
        shape: Shape,
        chain_id: int,
        peers: Peers,
        links: Links,
        wallet: Wallet,
        inputs: InputRows,
        weight_root: Callable[[Span], Hash32] | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
        trace: Traced | None = None,
    ) -> None:
        self.id = SessionId(secrets.token_bytes(16))
        self.shape = shape
        self.policy = policy or Policy()
        self.position = 0
        self.failovers = 0
        self.trace = trace
        self._log = _log.bind(session=self.id)
        self._links = links
        self._wallet = wallet
        self._inputs = inputs
        self._pipeline = Pipeline(
            session=self.id,
            shape=shape,
            chain_id=chain_id,
            peers=peers,
            links=links,
            wallet=wallet,
            weight_root=weight_root,
            policy=self.policy,
            clock=clock,
            trace=trace,
        )
        self._number = 0
        self._pending: dict[int, Pending] = {}
        self._timed: tuple[int, float] | None = None
        self._answers: dict[int, Tensor] = {}
        self._parts: dict[int, tuple[int, ...]] = {}
        self._news: asyncio.Future[None] | None = None
        self._complaints = Complaints()
        self._refusals: Counter[Address] = Counter()
        self._owing: set[Hop] = set()
        self._again = False
        self._paying: asyncio.Task[None] | None = None
        self._closing: asyncio.Event = asyncio.Event()
        self._closed_by: set[Address] = set()
        self._closed = False

    # What users call

    async def open(self) -> None:
        """Find, pay for and open a route. Raises NoRoute, PaymentError, ChainError, StoreError."""
        self._links.listen(self.id, self)
        try:
            await self._pipeline.repair(replay_to=0, replay=self._replay, patience=self.policy.open_patience)
        except BaseException:
            await self.close()
            raise

    async def forward(
        self, hidden_BTD: Tensor, *, keep: int = 1, pos: int | None = None, reorder: Sequence[int] | None = None
    ) -> Tensor:
        """`send`, then `answer`."""
        return await self.answer(await self.send(hidden_BTD, keep=keep, pos=pos, reorder=reorder))

    async def send(
        self, hidden_BTD: Tensor, *, keep: int = 1, pos: int | None = None, reorder: Sequence[int] | None = None
    ) -> int:
        """Send `hidden_BTD` (in wire dtype) through the blocks at `pos` (default: where the session stands); returns
        what to ask the answer by: the last `keep` output positions, or all of them where the last blocks are not the
        nodes'.

        A `pos` before that drops what lies from there on. Raises PaymentError before anything of a step is sent that
        the wallet may not pay, NoRoute when a node is lost and nobody replaces it.
        """
        if self._closed:
            raise SessionClosed("this session is closed")
        pos = self.position if pos is None else pos
        tokens, most = hidden_BTD.shape[1], self.policy.prefill_tokens
        if not 0 <= pos <= self.position:
            raise PositionMismatch("beyond what the nodes hold", expected=self.position, offered=pos)
        if tokens < 1 or pos + tokens > self.shape.max_tokens:
            raise InvalidInput(f"{tokens} positions at {pos} do not fit a session of {self.shape.max_tokens}")
        if not 1 <= keep <= min(tokens, most):
            raise InvalidInput(f"at least 1 and at most {min(tokens, most)} of these positions can be kept")
        crop = pos < self.position
        if crop:
            self._pipeline.crop(pos, end=self.position)
        *steps, _last = prefill_steps(tokens, hops=len(self._pipeline.hops), most=most, keep=keep)
        start, parts, whole = 0, [], self.policy.local_blocks[1] > 0
        for size in steps:
            part = hidden_BTD[:, start : start + size]
            part_keep = size if whole else 0
            parts.append(await self._issue(part, pos + start, keep=part_keep, crop=crop, reorder=reorder))
            crop, reorder, start = False, None, start + size
            await self._until(self._has_room)
        keep = tokens - start if whole else keep
        number = await self._issue(hidden_BTD[:, start:], pos + start, keep=keep, crop=crop, reorder=reorder)
        self._parts = {number: (*parts, number)} if whole else {}
        return number

    async def settle(self) -> None:
        """Pay every node all that was ordered from it. Raises StoreError."""
        await pay(self._wallet, self._pipeline.hops)

    async def close(self) -> None:
        """Pay what is owed, end the session at every node, and wait a moment for the last receipts."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._paying is not None:
                await asyncio.gather(self._paying, return_exceptions=True)
            await self.settle()
        finally:
            self._closed_by.clear()
            self._pipeline.close()
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    while any(not h.lost and h.account not in self._closed_by for h in self._pipeline.hops):
                        self._closing.clear()
                        await self._closing.wait()
            except TimeoutError:
                self._log.debug("not every node confirmed the end")
            self._links.forget(self.id)

    def affords(self, end: int, *, at: int) -> bool:
        """Whether positions `[at, end)` still fit this session: its size, and the leaves that pay its nodes."""
        if self._closed or end > self.shape.max_tokens:
            return False
        return all(hop.lost or hop.affords(end - at) for hop in self._pipeline.hops)

    def set_aside(self, needed: int, extra: int) -> int:
        """How many of `extra` positions may be spent on guesses, their money being reserved along with that of the
        `needed` ones. None once a node has shown that it cannot roll back."""
        fitting = 0 if self._refusals else min(extra, self.policy.prefill_tokens - 1)
        return set_aside(self._pipeline.hops, needed, fitting)

    def answered(self, number: int) -> bool:
        """Whether `answer` would not have to wait."""
        return number in self._answers

    @property
    def route(self) -> tuple[RouteHop, ...]:
        return tuple(RouteHop(hop.account, hop.leg.span) for hop in self._pipeline.hops)

    def usage(self) -> tuple[NodeUsage, ...]:
        """What each node did for this session so far, in order of blocks."""
        return usage_of([*self._pipeline.retired, *self._pipeline.hops])

    def take_receipts(self) -> list[SignedReceipt]:
        """The receipts that came since the last call."""
        hops = [*self._pipeline.retired, *self._pipeline.hops]
        return [signed for hop in hops if hop.chain is not None for signed in hop.chain.take()]

    # Steps

    async def _issue(self, part_BTD: Tensor, pos: int, *, keep: int, crop: bool, reorder: Sequence[int] | None) -> int:
        """Order, pay where it must come first, send. Returns the step's number."""
        self._pipeline.lose_strangers()
        if not self._pipeline.whole:
            await self._repair(pos)
        dtype, shape, payload = to_wire(part_BTD)
        tokens = shape[1]
        hops = self._pipeline.hops
        number = self._number + 1
        order_step(hops, number, tokens)
        self._number = number
        step = Pending(
            number,
            pos,
            tokens,
            messages.Tensor(dtype, list(shape)),
            payload,
            keep,
            crop,
            None if reorder is None else list(reorder),
        )
        if reorder is not None:
            self._pipeline.orders.ask(Reordering(pos, tuple(reorder)))
        self._pending[number] = step
        self.position = pos + tokens
        if any(hop.must_pay for hop in hops):
            await pay(self._wallet, hops)
        alone = len(self._pending) == 1 and tokens == self.shape.batch == 1
        self._timed = (number, time.monotonic()) if alone else None
        self._send(step)
        if self._paying is None and any(hop.should_pay for hop in hops):
            self._paying = asyncio.create_task(self._pay_ahead(), name="pay")
        return number

    def _send(self, step: Pending) -> None:
        """To the first node, if there is one; a repair sends it later otherwise."""
        hop = self._pipeline.hops[0] if self._pipeline.hops else None
        if hop is None or hop.lost:
            return
        hop.send(step.message(self.id), step.payload)
        hop.sent.saw(step.pos, step.payload, batch=self.shape.batch, tokens=step.tokens)

    async def _pay_ahead(self) -> None:
        """While the nodes compute, promise them what they have been asked for."""
        try:
            await pay(self._wallet, self._pipeline.hops)
        except CorollaError as error:
            # The nodes will ask for it, and then whoever waits for them learns of what is wrong with the store.
            self._log.warning("could not pay ahead", error=str(error))
        finally:
            self._paying = None

    async def answer(self, number: int) -> Tensor:
        """The answer to a `send`, once. Raises NoRoute or NetworkError when there will be none, and PaymentError,
        ChainError or StoreError when replacing a lost node cannot be paid."""
        parts = self._parts.pop(number, (number,))
        await self._until(lambda: all(part in self._answers for part in parts))
        rows = [self._answers[part] for part in parts]
        self._answers.clear()
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait for `done`, mending what breaks meanwhile."""
        waited_for = sum(step.tokens for step in self._pending.values())
        try:
            while not done():
                if self._owing or self._again or not self._pipeline.whole:
                    await self._repair(self.position)
                    continue
                self._news = asyncio.get_running_loop().create_future()
                try:
                    async with asyncio.timeout(self.policy.step + self.policy.step_per_token * waited_for):
                        await self._news
                except TimeoutError:
                    self._blame_silence()
        finally:
            self._news = None

    def _has_room(self) -> bool:
        """Whether little enough is on its way for another prompt chunk: nodes refuse to queue without bound."""
        return sum(step.payload.nbytes for step in self._pending.values()) < self.policy.window_bytes

    async def _repair(self, needed: int) -> None:
        """Replace what is lost, pay what is owed, and send again what is not answered. New nodes get the history up to
        the first step not answered, or up to position `needed` where there is none."""
        if not self._pipeline.whole:
            self.failovers += 1
            self._pipeline.linkage.void(self.position)
            if self.failovers > self.policy.max_failovers:
                raise NetworkError(f"gave up after {self.policy.max_failovers} failovers")
        self._timed = None
        waiting = list(self._pending.values())
        replay_to = waiting[0].pos if waiting else needed
        patience = self.policy.patience
        await self._pipeline.repair(replay_to=replay_to, replay=self._replay, patience=patience)
        for step in waiting:
            order_step(self._pipeline.hops, step.number, step.tokens)
        owing, self._owing, self._again = self._owing, set(), False
        await pay(self._wallet, self._pipeline.hops)
        for hop in owing:
            voucher = self._wallet.latest(hop.purse)
            if voucher is not None:
                hop.send(pay_message(voucher))
        # All of them, also those answered in the meantime: the new nodes need their inputs too.
        for step in waiting:
            self._send(step)

    async def _replay(self, hop: Hop, upto: int) -> None:
        """Send the client's own inputs to a new first node."""
        size = self.policy.prefill_tokens
        for start in range(0, upto, size):
            stop = min(start + size, upto)
            dtype, shape, payload = to_wire(await self._inputs(start, stop))
            tensor = messages.Tensor(dtype, list(shape))
            # `crop` lets a replay start over on a node that got part of an earlier one.
            hop.send(Step(self.id, REPLAY, start, tensor, keep=0, forward_from=upto, crop=True), payload)

    def _blame_silence(self) -> None:
        """Every connection stands and still nothing comes. Nobody can be shown to be the one: try from the end."""
        hop = self._pipeline.hops[-(1 + self.failovers % len(self._pipeline.hops))]
        self._pipeline.lose(hop, PeerTimeout("no answer to a step", peer=hop.account))

    # What comes in

    def on_message(self, peer: Address, message: AnyMessage, payload: memoryview) -> None:
        """A message of this session, or of no session, from a connected node."""
        hop = self._pipeline.hop(peer)
        if hop is None:
            return
        try:
            match message:
                case Result():
                    self._take_result(hop, message, payload)
                case messages.Receipt():
                    self._pipeline.take_receipt(hop, message.signed)
                case Opened() | Rewired():
                    hop.answer(message)
                case Fault():
                    self._take_fault(hop, message)
                case Closed():
                    self._closed_by.add(peer)
                    self._closing.set()
                case _:
                    return  # Paid, Info: nothing waits for them here
        except PeerMisbehaved as error:
            self._pipeline.lose(hop, error)
        if not self._pipeline.whole or self._owing or self._again:
            self._wake()

    def on_lost(self, peer: Address, error: NetworkError) -> None:
        """A connection is gone."""
        hop = self._pipeline.hop(peer)
        if hop is not None:
            self._pipeline.lose(hop, error)
            self._closing.set()
            self._wake()

    def _take_result(self, hop: Hop, result: Result, payload: memoryview) -> None:
        step = self._pending.get(result.step)
        if step is None or not self._pipeline.hops or hop is not self._pipeline.hops[-1]:
            return  # an answer given twice, or a replay's
        answer = step.read(result, payload, hidden=self.shape.hidden, peer=hop.account)
        if answer is not None:
            hop.received.saw(result.pos, payload, batch=self.shape.batch, tokens=step.keep)
        del self._pending[result.step]
        if self._timed is not None and self._timed[0] == result.step:
            self._pipeline.took(time.monotonic() - self._timed[1])
        self._complaints.clear()
        if answer is not None:
            self._answers[result.step] = answer
        self._wake()

    def _take_fault(self, hop: Hop, fault: Fault) -> None:
        error = error_from_wire(fault.error)
        if hop.chain is None:
            hop.fail(error)  # it refuses to open
            return
        step = self._pending.get(fault.step or REPLAY)
        if isinstance(error, PositionMismatch) and step is not None and step.crop and self._refusals[hop.account] < 2:
            # It keeps a state that cannot be rolled back, which is nobody's fault: it opens anew and gets the history.
            # Twice at most, as the guesses of the step under way may have to be rolled back as well.
            self._refusals[hop.account] += 1
            hop.fail(error)
            return
        account = hop.purse.account
        report = Report(hop.account, error, self._complaints.count(hop.account, error), account.ordered, account.signed)
        verdict = blame.judge(report, [h.account for h in self._pipeline.hops if not h.lost])
        if isinstance(verdict, Ignore):
            return
        self._complaints.add(hop.account, error)
        self._log.info("a node reports", peer=hop.account, error=str(error), verdict=type(verdict).__name__)
        match verdict:
            case Replace(account=blamed, error=reason):
                target = self._pipeline.hop(blamed)
                if target is not None:
                    self._pipeline.lose(target, reason)
            case PayUp():
                self._owing.add(hop)
            case SendAgain():
                self._again = True
        hop.interrupt(error)

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
