"""Hidden states as int8 with a scale for every 64: small, near enough, and the same bytes when packed again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.model.blockwise import pack, unpack, unpacked_size
from corolla_core.model.statistics import mismatches
from corolla_core.model.tensors import from_wire, onto_wire, over_wire, to_wire
from corolla_core.protocol.errors import TensorRejected
from corolla_core.protocol.receipt import NumericClass, WireDtype

sizes = st.integers(1, 200)


def hidden_of(size: int, *, seed: int, scale: float = 1.0, rows: int = 3) -> torch.Tensor:
    return scale * torch.randn(2, rows, size, generator=torch.Generator().manual_seed(seed))


@given(size=sizes, seed=st.integers(0, 1000), scale=st.sampled_from([1e-3, 1.0, 3e4]))
def test_a_number_is_off_by_half_a_step_of_its_block_at_most(size: int, seed: int, scale: float) -> None:
    sent = hidden_of(size, seed=seed, scale=scale)
    got = over_wire(sent, "int8")
    assert got.shape == sent.shape
    for start in range(0, size, 64):
        block, back = sent[..., start : start + 64], got[..., start : start + 64]
        step = (block.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=2**-14)
        assert bool(((block - back).abs() <= 0.51 * step).all())


@given(size=sizes, seed=st.integers(0, 1000), scale=st.sampled_from([1e-6, 1e-3, 1.0, 3e4]))
def test_what_was_unpacked_packs_to_the_same_bytes(size: int, seed: int, scale: float) -> None:
    packed = pack(hidden_of(size, seed=seed, scale=scale))
    assert torch.equal(pack(unpack(packed)), packed)


def test_a_row_takes_a_quarter_of_its_bytes_and_is_off_by_less_than_a_hundredth() -> None:
    sent = hidden_of(4096, seed=1)
    assert WireDtype.INT8.width(4096) == 4096 + 2 * 64
    assert float((over_wire(sent, "int8") - sent).norm() / sent.norm()) < 0.01


@given(size=sizes, seed=st.integers(0, 1000), shift=st.integers(0, 7))
def test_packed_rows_travel_like_any_tensor(size: int, seed: int, shift: int) -> None:
    sent = hidden_of(size, seed=seed)
    name, shape, view = to_wire(onto_wire(sent, "int8"))
    assert (name, shape[-1]) == ("int8", WireDtype.INT8.width(size))
    assert len(view) == 6 * shape[-1]
    buffer = memoryview(bytes(shift) + bytes(view))[shift:]
    assert torch.equal(from_wire(name, shape, buffer, expect_shape=sent.shape), over_wire(sent, "int8"))


@given(size=sizes)
def test_a_width_tells_the_size(size: int) -> None:
    assert unpacked_size(WireDtype.INT8.width(size)) == size


@pytest.mark.parametrize("width", [0, 1, 2, 67, 68, 134])
def test_a_width_that_no_size_gives_is_rejected(width: int) -> None:
    with pytest.raises(TensorRejected):
        unpacked_size(width)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_hostile_scale_is_rejected(bad: float) -> None:
    payload = bytearray(to_wire(pack(hidden_of(128, seed=2)))[2])
    payload[130:132] = np.float16(bad).tobytes()  # the second scale of the first row
    with pytest.raises(TensorRejected):
        from_wire("int8", (2, 3, 132), payload, expect_shape=(2, 3, 128))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e7])
def test_what_does_not_fit_the_wire_is_refused_by_whoever_gets_it(bad: float) -> None:
    sent = hidden_of(128, seed=3)
    sent[1, 1, 70] = bad
    with pytest.raises(TensorRejected):
        unpack(pack(sent))


def test_rows_match_where_they_are_the_same_on_the_wire() -> None:
    honest = hidden_of(128, seed=4)
    assert float(mismatches(over_wire(honest, "int8"), honest, "int8").max()) == 0.0
    nearly = honest * (1 + 1e-6 * torch.randn(honest.shape, generator=torch.Generator().manual_seed(5)))
    assert float(mismatches(over_wire(nearly, "int8"), honest, "int8").mean()) < 0.02
    assert float(mismatches(over_wire(1.02 * honest, "int8"), honest, "int8").min()) > 0.5


def test_only_float32_arithmetic_is_served_over_int8() -> None:
    assert [each for each in NumericClass if WireDtype.INT8 in each.wires] == [NumericClass.FP32]
    assert all({"float32", "bfloat16", "float16"} <= set(each.wires) for each in NumericClass)
