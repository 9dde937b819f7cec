"""Receipts to and from the wire."""

from __future__ import annotations

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Hash32, ModelRoot, SessionId
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt
from corolla_core.protocol.span import Span
from corolla_core.swarm import messages


def to_message(signed: SignedReceipt) -> messages.Receipt:
    """The receipt as it travels."""
    receipt = signed.receipt
    return messages.Receipt(
        receipt.chain_id,
        receipt.epoch,
        receipt.model_root,
        receipt.span.start,
        receipt.span.end,
        receipt.weight_root,
        receipt.numeric_class.value,
        receipt.session_id,
        receipt.client_nonce,
        receipt.pos_start,
        receipt.n_pos,
        receipt.in_root,
        receipt.out_root,
        receipt.upstream_receipt_hash,
        receipt.prev_receipt_hash,
        receipt.t_in,
        receipt.t_out,
        signed.signature,
    )


def from_message(message: messages.Receipt) -> SignedReceipt:
    """The receipt a peer sent; its signature is not looked at. Raises InvalidInput."""
    try:
        numeric_class = NumericClass(message.numeric_class)
    except ValueError:
        raise InvalidInput(f"no numeric class {message.numeric_class!r}") from None
    receipt = Receipt(
        chain_id=message.chain_id,
        epoch=message.epoch,
        model_root=ModelRoot(message.model_root),
        span=Span(message.start, message.end),
        weight_root=Hash32(message.weight_root),
        numeric_class=numeric_class,
        session_id=SessionId(message.session),
        client_nonce=message.client_nonce,
        pos_start=message.pos_start,
        n_pos=message.n_pos,
        in_root=Hash32(message.in_root),
        out_root=Hash32(message.out_root),
        upstream_receipt_hash=Hash32(message.upstream_receipt_hash),
        prev_receipt_hash=Hash32(message.prev_receipt_hash),
        t_in=message.t_in,
        t_out=message.t_out,
    )
    return SignedReceipt(receipt, message.signature)
