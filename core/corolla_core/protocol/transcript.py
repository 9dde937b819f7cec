"""One session at one node as its receipts tell it, with the rows under them: what an audit judges, and what anyone can
check again. Nothing here trusts whoever put it together: a `Transcript` that exists is true to its signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import pairwise

import msgspec

from corolla_core.protocol.errors import InvalidInput, InvalidProof, MalformedMessage
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, SessionId
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype, rows_root
from corolla_core.protocol.reordering import Reordering, check_order
from corolla_core.protocol.span import Span

MAX_ENTRIES = 65_536


@dataclass(frozen=True, slots=True)
class Entry:
    """One receipt, the exact wire bytes of its rows, position after position, and how its sequences were reordered."""

    signed: SignedReceipt
    inputs: bytes
    outputs: bytes
    reorderings: tuple[Reordering, ...] = ()

    @property
    def receipt(self) -> Receipt:
        return self.signed.receipt


@dataclass(frozen=True)
class Transcript:
    """The beginning of a node's chain of receipts, opened. Raises InvalidProof where the chain or a root does not hold,
    InvalidSignature where a signature is none."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.entries) <= MAX_ENTRIES:
            raise InvalidInput(f"a transcript has 1 to {MAX_ENTRIES} entries, not {len(self.entries)}")
        if len({entry.signed.signer() for entry in self.entries}) != 1:
            raise InvalidProof("the receipts are signed by several accounts")
        if len({_agreed(entry.receipt) for entry in self.entries}) != 1:
            raise InvalidProof("the receipts are of several sessions")
        _check_chain([entry.receipt for entry in self.entries])
        for entry in self.entries:
            self._check_rows(entry)
            check_order(entry.receipt, entry.reorderings)

    def _check_rows(self, entry: Entry) -> None:
        receipt = entry.receipt
        for name, data, root in (
            ("inputs", entry.inputs, receipt.in_root),
            ("outputs", entry.outputs, receipt.out_root),
        ):
            if not data or len(data) != receipt.n_pos * self.row_bytes:
                raise InvalidProof(f"{len(data)} bytes are no {receipt.n_pos} rows of {name}")
            if rows_root(receipt.session_id, receipt.pos_start, _rows(data, self.row_bytes)) != root:
                raise InvalidProof(f"these are not the {name} the receipt was signed for")

    @cached_property
    def node(self) -> Address:
        """Who signed it."""
        return self.entries[0].signed.signer()

    @cached_property
    def row_bytes(self) -> int:
        first = self.entries[0]
        return len(first.inputs) // first.receipt.n_pos

    @property
    def session(self) -> SessionId:
        return self.entries[0].receipt.session_id

    @property
    def span(self) -> Span:
        return self.entries[0].receipt.span

    @property
    def numeric_class(self) -> NumericClass:
        return self.entries[0].receipt.numeric_class

    @property
    def wire(self) -> WireDtype:
        return self.entries[0].receipt.wire

    @property
    def batch(self) -> int:
        return self.entries[0].receipt.batch

    @property
    def head(self) -> Receipt:
        """The last receipt: it answers, through the hash chain, for all before it."""
        return self.entries[-1].receipt

    @cached_property
    def visible(self) -> tuple[tuple[int, int], ...]:
        """For each position from 0 on, (entry, row in it) as things stood after the last entry: where a later receipt
        starts before an earlier one's end, the session was rolled back to there."""
        places: list[tuple[int, int]] = []
        for index, entry in enumerate(self.entries):
            del places[entry.receipt.pos_start :]
            places += [(index, row) for row in range(entry.receipt.n_pos)]
        return tuple(places)

    @cached_property
    def reorderings(self) -> tuple[Reordering, ...]:
        """What became of the sequences at the visible positions, one at a position, in order.

        The rows of a position stand as they were when it was signed for; later reorderings moved what was computed of
        them in the cache. One at a position that was rolled back did so as well, and before the next one was computed:
        there it is shown.
        """
        found: list[Reordering] = []
        for entry in self.entries:
            start = entry.receipt.pos_start
            if found and found[-1].position > start:
                _join(found, Reordering(start, tuple(range(self.batch))))
            for each in entry.reorderings:
                _join(found, each)
        return tuple(each for each in found if each.position)  # before position 0 there is nothing to reorder

    def input_rows(self) -> list[memoryview]:
        """The visible input rows, by position."""
        return [self._row(self.entries[index].inputs, row) for index, row in self.visible]

    def output_rows(self) -> list[memoryview]:
        """The visible output rows, by position."""
        return [self._row(self.entries[index].outputs, row) for index, row in self.visible]

    def encode(self) -> bytes:
        """As it is kept and sent; `decode` gives the same transcript back."""
        return msgspec.msgpack.encode(self.entries)

    def hash(self) -> Hash32:
        """What an accusation on chain names its evidence by: SHA-256 of its encoding, so of the file it is kept in."""
        return Hash32(sha256(self.encode()).digest())

    @classmethod
    def decode(cls, data: bytes) -> Transcript:
        """Raises MalformedMessage where it does not parse, and as the constructor does."""
        try:
            entries = msgspec.msgpack.decode(data, type=tuple[Entry, ...])
        except (msgspec.MsgspecError, InvalidInput, RecursionError) as error:
            raise MalformedMessage(f"not evidence: {error}") from None
        return cls(entries)

    def _row(self, data: bytes, row: int) -> memoryview:
        return memoryview(data)[row * self.row_bytes :][: self.row_bytes]


def _rows(data: bytes, size: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[at : at + size] for at in range(0, len(view), size)]


def _join(found: list[Reordering], later: Reordering) -> None:
    """Add one that happened after all of `found`, as one with those at its position and beyond."""
    rows = later.rows
    while found and found[-1].position >= later.position:
        before = found.pop().rows
        rows = tuple(before[row] for row in rows)
    found.append(Reordering(later.position, rows))


def _agreed(receipt: Receipt) -> tuple[object, ...]:
    return (
        receipt.chain_id,
        receipt.model_root,
        receipt.span,
        receipt.weight_root,
        receipt.numeric_class,
        receipt.session_id,
        receipt.client_nonce,
        receipt.wire,
        receipt.batch,
    )


def _check_chain(receipts: Sequence[Receipt]) -> None:
    if receipts[0].prev_receipt_hash != ZERO_HASH or receipts[0].pos_start != 0:
        raise InvalidProof("the chain does not begin at its beginning")
    end = receipts[0].n_pos
    for before, after in pairwise(receipts):
        if after.prev_receipt_hash != before.hash():
            raise InvalidProof("a receipt does not follow the one before")
        if after.pos_start > end:
            raise InvalidProof(f"positions [{end}, {after.pos_start}) are missing")
        end = after.pos_start + after.n_pos
