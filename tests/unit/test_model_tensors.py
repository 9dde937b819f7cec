"""Hidden states on the wire."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.model.tensors import WIRE_DTYPES, from_wire, is_finite, to_wire
from corolla_core.protocol.errors import TensorRejected

FLOATS = sorted(WIRE_DTYPES.keys() - {"int8"})
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(name=st.sampled_from(FLOATS), shape=shapes, shift=st.integers(0, 7), readonly=st.booleans())
def test_a_tensor_survives_the_wire_at_any_alignment(name: str, shape: list[int], shift: int, readonly: bool) -> None:
    sent = torch.randn(shape).to(WIRE_DTYPES[name])
    dtype, wired, view = to_wire(sent)
    assert (dtype, list(wired), len(view)) == (name, shape, sent.nbytes)
    frame = bytearray(shift) + bytearray(view)
    buffer = memoryview(bytes(frame) if readonly else frame)[shift:]
    assert torch.equal(from_wire(dtype, wired, buffer, expect_shape=shape, max_bytes=10**6), sent)


@pytest.mark.parametrize("name", FLOATS)
def test_sending_and_receiving_copy_nothing(name: str) -> None:
    sent = torch.randn(3, 4).to(WIRE_DTYPES[name])
    _, _, view = to_wire(sent)
    frame = bytearray(view)
    got = from_wire(name, (3, 4), frame, expect_shape=(3, 4), max_bytes=100)
    sent.zero_()
    assert bytes(view) == bytes(sent.nbytes)
    frame[:] = bytes(len(frame))
    assert torch.equal(got, torch.zeros_like(got))


def test_a_tensor_that_is_not_contiguous_travels_row_by_row() -> None:
    sent = torch.randn(4, 6)[:, ::2].t()
    name, shape, view = to_wire(sent)
    assert torch.equal(from_wire(name, shape, bytes(view), expect_shape=(3, 4), max_bytes=100), sent)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bool, torch.int16])
def test_a_dtype_that_does_not_travel_is_not_sent(dtype: torch.dtype) -> None:
    with pytest.raises(TensorRejected):
        to_wire(torch.zeros(2, dtype=dtype))


@pytest.mark.parametrize(
    ("dtype", "shape", "expect", "size"),
    [
        ("float64", [2, 2], [2, 2], 32),
        ("int8", [2, 2], [2, 2], 4),
        ("int8", [2, 66], [2, 66], 132),
        ("int8", [2, 66], [2, 64], 131),
        ("int8", [2, 68], [2, None], 136),
        ("torch.float32", [2, 2], [2, 2], 16),
        ("", [2, 2], [2, 2], 16),
        ("__class__", [2, 2], [2, 2], 16),
        ("float32", [2, 2], [2, 3], 16),
        ("float32", [2, 2], [2, 2, 1], 16),
        ("float32", [], [], 4),
        ("float32", [0, 2], [None, 2], 0),
        ("float32", [-2, -2], [None, None], 16),
        ("float32", [2.0, 2], [2, 2], 16),
        ("float32", [True, 4], [1, 4], 16),
        ("float32", [2**62, 2], [None, 2], 16),
        ("float32", [2, 2], [2, 2], 15),
        ("float32", [2, 2], [2, 2], 17),
        ("float32", [2, 2], [2, 2], 0),
        ("bfloat16", [2, 2], [2, 2], 16),
        ("float32", [200, 200], [200, 200], 160_000),
    ],
)
def test_what_does_not_fit_is_rejected(dtype: str, shape: list[Any], expect: list[Any], size: int) -> None:
    with pytest.raises(TensorRejected):
        from_wire(dtype, shape, bytes(size), expect_shape=expect, max_bytes=100_000)


@given(dtype=st.text(max_size=10), shape=st.lists(st.integers(), max_size=6), buffer=st.binary(max_size=64))
def test_hostile_tensors_are_rejected_or_whole(dtype: str, shape: list[int], buffer: bytes) -> None:
    try:
        got = from_wire(dtype, shape, buffer, expect_shape=[None] * len(shape), max_bytes=64)
    except TensorRejected:
        return
    if dtype != "int8":
        assert list(got.shape) == shape
        assert got.nbytes == len(buffer)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_rejects_the_tensor(name: str, bad: float) -> None:
    for at in (0, 517, 1151):
        hidden = torch.randn(2, 576)
        hidden.view(-1)[at] = bad
        dtype, shape, view = to_wire(hidden.to(WIRE_DTYPES[name]))
        with pytest.raises(TensorRejected):
            from_wire(dtype, shape, view, expect_shape=(2, 576), max_bytes=10**5)


def test_opposite_infinities_do_not_cancel_out() -> None:
    assert not is_finite(torch.tensor([float("inf"), -float("inf")]))


@pytest.mark.parametrize("name", FLOATS)
def test_large_finite_numbers_pass_though_their_sum_overflows(name: str) -> None:
    assert is_finite(torch.full((1000,), torch.finfo(WIRE_DTYPES[name]).max, dtype=WIRE_DTYPES[name]))
