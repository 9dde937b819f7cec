"""Receipts: signed per chunk, chained per session, made on a worker thread behind the serving path.

Row `p` of a receipt's trees is the exact wire bytes of position `p`: one hidden state, or those of every batch row
one after the other. A prefill step is a chunk of its own; single positions are gathered up to `chunk_tokens` of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import thread_time

from corolla_core.protocol.errors import InvalidSignature
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, rows_root
from corolla_core.protocol.reordering import Reordering, order_root
from corolla_core.protocol.signature import Signer
from corolla_core.store.kept_rows import Place
from corolla_node.archive import Archive, ArchivedRows
from corolla_node.ports import Clock
from corolla_node.steps import Agreement


@dataclass(frozen=True, slots=True)
class Issuer:
    """What is the same in every receipt a node signs."""

    signer: Signer
    chain_id: int
    epoch: int
    model_root: ModelRoot
    numeric_class: NumericClass


@dataclass(frozen=True, slots=True)
class Piece:
    """One computed step: `tokens` positions from `pos`, input and output as row-major `[batch, tokens, hidden]` bytes.

    `t_in` is in Unix milliseconds. `live`: the rows came from the node before as it computed them, and went on to the
    next one; not so in a replay of history, of which the neighbours signed long ago. `reorder`: what the sequences
    became before `pos` was computed.
    """

    pos: int
    tokens: int
    inputs: memoryview
    outputs: memoryview
    t_in: int
    live: bool = True
    reorder: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the node before sent as its receipt for a chunk, unchecked, and who that node is."""

    account: Address
    signed: SignedReceipt


@dataclass(frozen=True, slots=True)
class Signed:
    """`over` is the upstream's receipt that this one names; `broken` one by the upstream for other rows than came from
    it. `place` is where the rows lie, None where the disk took none. `seconds` of work went into it all."""

    receipt: SignedReceipt
    over: SignedReceipt | None
    broken: SignedReceipt | None
    place: Place | None
    seconds: float


class ReceiptChain:
    """One session's receipts. `add` gathers on the event loop; `sign` runs on the worker thread, in order.

    Chunks end at multiples of `chunk_tokens`, so that neighbours' chunks are the same ones whenever each of them began.
    """

    def __init__(
        self, issuer: Issuer, agreed: Agreement, weight_root: Hash32, archive: Archive, *, clock: Clock
    ) -> None:
        self._issuer = issuer
        self._agreed = agreed
        self._weight_root = weight_root
        self._archive = archive
        self._clock = clock
        self._gathered: list[Piece] = []
        self._previous: Hash32 = ZERO_HASH

    def add(self, piece: Piece) -> list[list[Piece]]:
        """The chunks this piece completes."""
        ready = []
        end = self._gathered[-1].pos + self._gathered[-1].tokens if self._gathered else piece.pos
        if self._gathered and (piece.tokens > 1 or end != piece.pos):
            ready.append(self.rest())
        self._gathered.append(piece)
        if piece.tokens > 1 or (piece.pos + 1) % self._agreed.chunk_tokens == 0:
            ready.append(self.rest())
        return ready

    def rest(self) -> list[Piece]:
        """What is gathered and not yet signed."""
        chunk, self._gathered = self._gathered, []
        return chunk

    def sign(self, chunk: list[Piece], upstream: Upstream | None = None) -> Signed:
        """The receipt of one chunk, over the upstream's where that fits; the next one will refer to its hash."""
        began = thread_time()
        issuer, agreed, first = self._issuer, self._agreed, chunk[0]
        inputs = list(_rows(chunk, agreed.batch, inputs=True))
        outputs = list(_rows(chunk, agreed.batch, inputs=False))
        reorderings = tuple(Reordering(piece.pos, piece.reorder) for piece in chunk if piece.reorder is not None)
        receipt = Receipt(
            chain_id=issuer.chain_id,
            epoch=issuer.epoch,
            model_root=issuer.model_root,
            span=agreed.span,
            weight_root=self._weight_root,
            numeric_class=issuer.numeric_class,
            session_id=agreed.session,
            client_nonce=agreed.client_nonce,
            pos_start=first.pos,
            n_pos=len(inputs),
            wire=agreed.wire_dtype,
            batch=agreed.batch,
            order_root=order_root(reorderings),
            in_root=rows_root(agreed.session, first.pos, inputs),
            out_root=rows_root(agreed.session, first.pos, outputs),
            upstream_receipt_hash=ZERO_HASH,
            prev_receipt_hash=self._previous,
            t_in=first.t_in,
            t_out=max(first.t_in, int(self._clock() * 1000)),
        )
        over = _fitting(upstream, receipt)
        broken = None
        if over is not None and over.receipt.out_root != receipt.in_root:
            over, broken = None, over
        if over is not None:
            receipt = replace(receipt, upstream_receipt_hash=over.receipt.hash())
        self._previous = receipt.hash()
        rows = ArchivedRows(
            self._previous,
            agreed.session,
            first.pos,
            agreed.wire_dtype,
            agreed.batch,
            tuple(inputs),
            tuple(outputs),
            reorderings,
        )
        place = self._archive.keep(rows)  # before the receipt leaves: who signed can always show
        return Signed(receipt.sign(issuer.signer), over, broken, place, thread_time() - began)


def _fitting(upstream: Upstream | None, receipt: Receipt) -> SignedReceipt | None:
    """The upstream's receipt, if it is one by the upstream, for this very chunk of the blocks before these."""
    if upstream is None:
        return None
    try:
        signer = upstream.signed.signer()
    except InvalidSignature:
        return None
    theirs = upstream.signed.receipt
    stated = (theirs.chain_id, theirs.model_root, theirs.session_id, theirs.pos_start, theirs.n_pos)
    ours = (receipt.chain_id, receipt.model_root, receipt.session_id, receipt.pos_start, receipt.n_pos)
    fits = signer == upstream.account and stated == ours and theirs.span.end == receipt.span.start
    return upstream.signed if fits else None


def signing_thread() -> ThreadPoolExecutor:
    """One thread, so that the receipts of a session are signed in order."""
    return ThreadPoolExecutor(1, thread_name_prefix="corolla-receipts")


def _rows(chunk: list[Piece], batch: int, *, inputs: bool) -> Iterator[bytes | memoryview]:
    for piece in chunk:
        data = piece.inputs if inputs else piece.outputs
        size = data.nbytes // (batch * piece.tokens)
        for token in range(piece.tokens):
            rows = [data[(row * piece.tokens + token) * size :][:size] for row in range(batch)]
            yield rows[0] if batch == 1 else b"".join(rows)
