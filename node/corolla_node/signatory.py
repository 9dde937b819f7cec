"""A session's receipts on their way: gathered, signed over the upstream's, kept, sent to the client and downstream.

A chunk waits for the upstream's receipt a short while and is then signed without it. Receipts leave in the order of
their chain, behind the tensors they are about, and nothing that is computed waits for them.
"""

from __future__ import annotations

from asyncio import Future, TimerHandle
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from corolla_core.protocol.errors import CorollaError, LinkBroken
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.swarm.messages import Receipt
from corolla_node.desk import Desk
from corolla_node.receipts import Piece, ReceiptChain, Signed, Upstream
from corolla_node.steps import Agreement

_log = structlog.get_logger(__name__)
UPSTREAM_SECONDS = 1.0
"""How long a chunk waits for the upstream's receipt."""
CLOSING_SECONDS = 0.25
"""The same for the last one: a client waits for the end."""
MAX_HEARD = 32
"""Receipts of the upstream that no chunk has met yet."""
MAX_WAITING = 64
"""Chunks that wait; a session that makes more of them in so short a time does not wait for the first."""


@dataclass(slots=True)
class _Chunk:
    pieces: list[Piece]
    deadline: float

    @property
    def live(self) -> bool:
        return all(piece.live for piece in self.pieces)

    @property
    def key(self) -> tuple[int, int]:
        return self.pieces[0].pos, sum(piece.tokens for piece in self.pieces)


class Signatory:
    """Used from the event loop only. `tell` sends to the client, `forward` to the next node, `fault` complains."""

    def __init__(
        self,
        desk: Desk,
        agreed: Agreement,
        weight_root: Hash32,
        *,
        tell: Callable[[Receipt], None],
        forward: Callable[[Receipt], None],
        fault: Callable[[CorollaError], None],
    ) -> None:
        self._desk = desk
        self._agreed = agreed
        self._upstream = agreed.upstream
        self._chain = ReceiptChain(desk.issuer, agreed, weight_root, desk.archive, clock=desk.clock)
        self._tell = tell
        self._forward = forward
        self._fault = fault
        self._heard: OrderedDict[tuple[int, int], Receipt] = OrderedDict()
        self._waiting: deque[_Chunk] = deque()
        self._signing = False
        self._timer: TimerHandle | None = None
        self._done: Future[None] | None = None
        self._closed = False

    def add(self, piece: Piece) -> None:
        """A step was computed. One that comes after `close` gets no receipt: nobody is left to give it to."""
        if self._closed:
            return
        for pieces in self._chain.add(piece):
            self._queue(pieces)

    def heard(self, message: Receipt) -> None:
        """The upstream has sent its receipt."""
        receipt = message.signed.receipt
        self._heard[receipt.pos_start, receipt.n_pos] = message
        while len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)
        self._pump()

    def upstream_is(self, account: Address) -> None:
        """Another node is before this one: what came from the last one is signed without it."""
        if account == self._upstream:
            return
        self._upstream = account
        self._heard.clear()
        rest = self._chain.rest()
        if rest:
            self._queue(rest)
        for chunk in self._waiting:
            chunk.pieces = [replace(piece, live=False) for piece in chunk.pieces]
        self._pump()

    def close(self) -> Future[None] | None:
        """Sign what is left; returns what to wait for until all has left, None where all has."""
        self._closed = True
        rest = self._chain.rest()
        if rest:
            self._queue(rest)
        if not (self._waiting or self._signing):
            return None
        soon = self._desk.loop.time() + CLOSING_SECONDS
        for chunk in self._waiting:
            chunk.deadline = min(chunk.deadline, soon)
        self._done = self._desk.loop.create_future()
        self._pump()
        return self._done

    def _queue(self, pieces: list[Piece]) -> None:
        self._waiting.append(_Chunk(pieces, self._desk.loop.time() + UPSTREAM_SECONDS))
        self._pump()

    def _pump(self) -> None:
        """Sign the first chunk that waits, if it need not wait any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._signing or not self._waiting:
            return
        chunk = self._waiting[0]
        upstream = None
        if chunk.live and self._upstream is not None:
            message = self._heard.pop(chunk.key, None)
            if message is not None:
                upstream = Upstream(self._upstream, message.signed)
            elif len(self._waiting) <= MAX_WAITING and self._desk.loop.time() < chunk.deadline:
                self._timer = self._desk.loop.call_at(chunk.deadline, self._pump)
                return
        self._waiting.popleft()
        self._signing = True
        work = self._desk.loop.run_in_executor(self._desk.signing, self._chain.sign, chunk.pieces, upstream)
        work.add_done_callback(lambda future: self._signed(future, chunk))

    def _signed(self, future: Future[Signed], chunk: _Chunk) -> None:
        self._signing = False
        if future.cancelled() or future.exception() is not None:
            about = {"session": self._agreed.session, "peer": self._agreed.client, "span": str(self._agreed.span)}
            _log.error("a receipt could not be signed", **about, error=str(future))
        else:
            self._send(future.result(), chunk)
        self._pump()
        if self._done is not None and not self._done.done() and not (self._waiting or self._signing):
            self._done.set_result(None)

    def _send(self, signed: Signed, chunk: _Chunk) -> None:
        tokens = chunk.key[1]
        self._desk.timings.add_receipt(signed.seconds, tokens)
        self._desk.metrics.receipt(signed.seconds, tokens)
        self._desk.bookkeeper.receipt(signed.receipt, signed.place)
        message = Receipt(signed.receipt)
        self._tell(message)
        if chunk.live:
            self._forward(message)
        if signed.over is not None:
            self._desk.bookkeeper.receipt(signed.over, None)
        if signed.broken is not None:
            # Kept as well: it is signed, and rows that do not fit it are here.
            self._desk.bookkeeper.receipt(signed.broken, None)
            text = "the node before signed for other rows than came from it"
            self._fault(LinkBroken(text, peer=self._upstream, receipt=signed.broken.receipt.hash()))
