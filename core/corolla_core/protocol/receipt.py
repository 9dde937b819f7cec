"""Receipts: what a node signs for every chunk it computed (protocol.md section 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from eth_utils.crypto import keccak

from corolla_core.protocol.eip712 import word
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, SessionId
from corolla_core.protocol.merkle import Buffer, leaf_hash, merkle_root
from corolla_core.protocol.signature import Signer, recover
from corolla_core.protocol.span import Span

_TAG = keccak(text="corolla/receipt/v2")
_HASHES = (
    "model_root",
    "weight_root",
    "client_nonce",
    "order_root",
    "in_root",
    "out_root",
    "upstream_receipt_hash",
    "prev_receipt_hash",
)


class NumericClass(StrEnum):
    """The arithmetic a node declares; each has its own audit tolerance."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    NF4 = "nf4"

    @property
    def wires(self) -> tuple[WireDtype, ...]:
        """Over which a node of this class can be audited. Rows in int8 are compared with what the auditor's own become
        there, and noise before the wire would decide which way that rounds: float32 alone has none to speak of."""
        return tuple(wire for wire in WireDtype if wire is not WireDtype.INT8 or self is NumericClass.FP32)


BLOCK = 64
"""How many numbers share a scale on the int8 wire (see `model.blockwise`)."""
SCALE_BYTES = 2


class WireDtype(StrEnum):
    """What a hidden state may be on the wire, by its torch name; every peer rounds to the one the client asked for."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"

    def width(self, hidden: int) -> int:
        """How many numbers of this dtype a hidden state takes: on the int8 wire also the bytes of its scales."""
        return hidden + SCALE_BYTES * -(-hidden // BLOCK) if self is WireDtype.INT8 else hidden


def row_leaf(session: SessionId, position: int, row: Buffer) -> Hash32:
    """`H(0 ‖ session ‖ position ‖ row)` over the exact wire bytes of one token's hidden state."""
    return leaf_hash(session, position.to_bytes(8, "big"), row)


def rows_root(session: SessionId, first_position: int, rows: Iterable[Buffer]) -> Hash32:
    """The Merkle root over consecutive rows, the first of them at `first_position`."""
    return merkle_root(row_leaf(session, first_position + i, row) for i, row in enumerate(rows))


@dataclass(frozen=True, slots=True)
class Receipt:
    """A node's statement that `span` turned the rows under `in_root` into those under `out_root`.

    A row is `batch` hidden states in dtype `wire`, those of all sequences at one position. `order_root` is what
    `reordering.order_root` gives for the reorderings of the sequences in this chunk. `t_in` is when the
    first row came, `t_out` when the receipt was signed, in Unix milliseconds.
    """

    chain_id: int
    epoch: int
    model_root: ModelRoot
    span: Span
    weight_root: Hash32
    numeric_class: NumericClass
    session_id: SessionId
    client_nonce: bytes
    pos_start: int
    n_pos: int
    wire: WireDtype
    batch: int
    order_root: Hash32
    in_root: Hash32
    out_root: Hash32
    upstream_receipt_hash: Hash32
    prev_receipt_hash: Hash32
    t_in: int
    t_out: int

    def __post_init__(self) -> None:
        for name in _HASHES:
            if len(getattr(self, name)) != 32:
                raise InvalidInput(f"{name} is 32 bytes")
        if len(self.session_id) != 16:
            raise InvalidInput("session_id is 16 bytes")
        for number in (self.chain_id, self.epoch, self.pos_start, self.n_pos, self.batch, self.t_in, self.t_out):
            if not 0 <= number < 2**64:
                raise InvalidInput(f"not a uint64: {number}")
        if self.n_pos == 0 or self.batch == 0 or self.t_out < self.t_in:
            raise InvalidInput("a receipt covers a position of a sequence and ends after it began")

    def words(self) -> tuple[int | bytes, ...]:
        """One value for each field of Solidity's struct (the span is two), names of classes and dtypes hashed."""
        return (
            self.chain_id,
            self.epoch,
            self.model_root,
            self.span.start,
            self.span.end,
            self.weight_root,
            keccak(text=self.numeric_class.value),
            self.session_id,
            self.client_nonce,
            self.pos_start,
            self.n_pos,
            keccak(text=self.wire.value),
            self.batch,
            self.order_root,
            self.in_root,
            self.out_root,
            self.upstream_receipt_hash,
            self.prev_receipt_hash,
            self.t_in,
            self.t_out,
        )

    def encode(self) -> bytes:
        """Canonical: one 32-byte word a field in declaration order, as Solidity's abi.encode does."""
        return b"".join(word(value) if isinstance(value, int) else value.ljust(32, b"\0") for value in self.words())

    def hash(self) -> Hash32:
        return Hash32(keccak(_TAG + self.encode()))

    def sign(self, signer: Signer) -> SignedReceipt:
        return SignedReceipt(self, signer.sign(self.hash()))


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    receipt: Receipt
    signature: bytes

    def signer(self) -> Address:
        """The account that signed. Raises InvalidSignature."""
        return recover(self.receipt.hash(), self.signature)
