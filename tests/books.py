"""Vouchers, trees and receipts for the tests of the stores."""

from __future__ import annotations

from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot, SessionId, TrancheId, address
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumProof, SumTree
from corolla_core.protocol.units import MAX_UINT128, Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher, Voucher, escrow_domain

PAYER = Signer(b"\x01" * 32)
PAYEE = Signer(b"\x02" * 32)
DOMAIN = escrow_domain(1337, address(b"\x09" * 20))
NOW = UnixTime(1_800_000_000)
CAP = Nectar(MAX_UINT128 - 7)
TREE = SumTree([Leaf(PAYEE.address, CAP), Leaf(PAYER.address, Nectar(7))])
LEAF, PROOF = TREE.leaves[0], TREE.proof(0)


def tranche(number: int) -> TrancheId:
    return TrancheId(number.to_bytes(32, "big"))


def promise(cumulative: int, *, on: int = 1, payee: Address = PAYEE.address, head: int = 0) -> SignedVoucher:
    """A signed voucher on tranche number `on`."""
    voucher = Voucher(tranche(on), payee, Nectar(cumulative), Hash32(bytes([head]) * 32))
    return voucher.sign(DOMAIN, PAYER)


def kept(signed: SignedVoucher) -> tuple[SignedVoucher, Leaf, SumProof]:
    return signed, LEAF, PROOF


def session_id(number: int) -> SessionId:
    return SessionId(number.to_bytes(16, "big"))


def receipt(
    *, session: int = 1, start: int = 0, count: int = 8, t_out: int = 2_000, signer: Signer = PAYEE
) -> SignedReceipt:
    zero = Hash32(bytes(32))
    return Receipt(
        chain_id=1337,
        epoch=0,
        model_root=ModelRoot(b"\x05" * 32),
        span=Span(0, 10),
        weight_root=zero,
        numeric_class=NumericClass.FP32,
        session_id=session_id(session),
        client_nonce=bytes(32),
        pos_start=start,
        n_pos=count,
        wire=WireDtype.FLOAT32,
        batch=1,
        order_root=ZERO_HASH,
        in_root=zero,
        out_root=zero,
        upstream_receipt_hash=zero,
        prev_receipt_hash=zero,
        t_in=min(1_000, t_out),
        t_out=t_out,
    ).sign(signer)
