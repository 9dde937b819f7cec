"""Receipts: signed per chunk, chained per session, made on a worker thread behind the serving path.

Row `p` of a receipt's trees is the exact wire bytes of position `p`: one hidden state, or those of every batch row
one after the other. A prefill step is a chunk of its own; single positions are gathered until `chunk_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from corolla_core.protocol.ids import ZERO_HASH, Hash32, ModelRoot
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, rows_root
from corolla_core.protocol.signature import Signer
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

    Times are Unix milliseconds.
    """

    pos: int
    tokens: int
    inputs: memoryview
    outputs: memoryview
    t_in: int
    t_out: int


class ReceiptChain:
    """One session's receipts. `add` gathers on the event loop; `sign` runs on the worker thread, in order."""

    def __init__(self, issuer: Issuer, agreed: Agreement, weight_root: Hash32) -> None:
        self._issuer = issuer
        self._agreed = agreed
        self._weight_root = weight_root
        self._gathered: list[Piece] = []
        self._previous: Hash32 = ZERO_HASH

    def add(self, piece: Piece) -> list[list[Piece]]:
        """The chunks this piece completes."""
        ready = []
        end = self._gathered[-1].pos + self._gathered[-1].tokens if self._gathered else piece.pos
        if self._gathered and (piece.tokens > 1 or end != piece.pos):
            ready.append(self.rest())
        self._gathered.append(piece)
        if piece.tokens > 1 or sum(p.tokens for p in self._gathered) >= self._agreed.chunk_tokens:
            ready.append(self.rest())
        return ready

    def rest(self) -> list[Piece]:
        """What is gathered and not yet signed."""
        chunk, self._gathered = self._gathered, []
        return chunk

    def sign(self, chunk: list[Piece]) -> SignedReceipt:
        """The receipt of one chunk; the next one will refer to its hash."""
        issuer, agreed = self._issuer, self._agreed
        first = chunk[0]
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
            n_pos=sum(piece.tokens for piece in chunk),
            in_root=rows_root(agreed.session, first.pos, _rows(chunk, agreed.batch, inputs=True)),
            out_root=rows_root(agreed.session, first.pos, _rows(chunk, agreed.batch, inputs=False)),
            upstream_receipt_hash=ZERO_HASH,
            prev_receipt_hash=self._previous,
            t_in=first.t_in,
            t_out=max(first.t_in, chunk[-1].t_out),
        )
        self._previous = receipt.hash()
        return receipt.sign(issuer.signer)


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
