"""Hypothesis strategies for receipts that parse, whatever they say."""

from __future__ import annotations

from hypothesis import strategies as st

from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.span import Span

_uint64s = st.integers(0, 2**64 - 1) | st.integers(0, 70)
_counts = st.integers(1, 2**64 - 1) | st.integers(1, 70)
_hashes = st.binary(min_size=32, max_size=32)
_times = st.tuples(_uint64s, _uint64s).map(sorted)


@st.composite
def signed_receipts(
    draw: st.DrawFn,
    *,
    sessions: st.SearchStrategy[bytes] = st.binary(min_size=16, max_size=16),  # noqa: B008 — immutable
    models: st.SearchStrategy[bytes] = _hashes,
) -> SignedReceipt:
    t_in, t_out = draw(_times)
    start = draw(st.integers(0, 4095))
    receipt = draw(
        st.builds(
            Receipt,
            chain_id=_uint64s,
            epoch=_uint64s,
            model_root=models,
            span=st.integers(start + 1, 4096).map(lambda end: Span(start, end)),
            weight_root=_hashes,
            session_id=sessions,
            client_nonce=_hashes,
            pos_start=_uint64s,
            n_pos=_counts,
            batch=_counts,
            order_root=_hashes,
            in_root=_hashes,
            out_root=_hashes,
            upstream_receipt_hash=_hashes,
            prev_receipt_hash=_hashes,
            t_in=st.just(t_in),
            t_out=st.just(t_out),
        )
    )
    return SignedReceipt(receipt, draw(st.binary(min_size=65, max_size=65)))
