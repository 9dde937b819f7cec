"""Tensors as they travel: raw row-major bytes, without a copy wherever the memory allows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import isfinite, prod

import torch
from torch import Tensor

from corolla_core.model.blockwise import pack, unpack, unpacked_size
from corolla_core.model.layout import bytes_of
from corolla_core.protocol.errors import TensorRejected

#: what a hidden state may be on the wire; every peer rounds to the one the session's client asked for. Those in int8
#: are packed, see `blockwise`.
WIRE_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
_WIRE_NAMES = {dtype: name for name, dtype in WIRE_DTYPES.items()}
MAX_WIRE_BYTES = 256 * 1024 * 1024

Buffer = bytes | bytearray | memoryview

# Received bytes are immutable and so are the tensors over them; torch says once a process that writing to them would
# be wrong. Let it be said here, to nobody.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.frombuffer(b"\0", dtype=torch.uint8)


def wire_dtype(name: str) -> torch.dtype:
    """The torch dtype of a wire name. Raises TensorRejected."""
    if name not in WIRE_DTYPES:
        raise TensorRejected(f"{name!r:.40} is no dtype of hidden states; known: {', '.join(WIRE_DTYPES)}")
    return WIRE_DTYPES[name]


def onto_wire(hidden: Tensor, wire: str) -> Tensor:
    """Hidden states [..., D] as they travel: [..., W] in wire dtype, on the CPU, in one piece.

    Raises TensorRejected for a dtype that does not travel."""
    if wire == "int8":
        return pack(hidden)
    dtype = wire_dtype(wire)
    if hidden.dtype is dtype and hidden.is_cpu and hidden.is_contiguous():
        return hidden
    return hidden.to(device="cpu", dtype=dtype).contiguous()


def over_wire(hidden: Tensor, wire: str) -> Tensor:
    """What the other end makes of hidden states [..., D] that are sent over this wire."""
    return unpack(pack(hidden)) if wire == "int8" else onto_wire(hidden, wire)


def to_wire(tensor: Tensor) -> tuple[str, tuple[int, ...], memoryview]:
    """(dtype name, shape, bytes) of what `onto_wire` gave. The bytes are the tensor's own memory when it is
    contiguous and on the CPU: do not write to it before they are sent. Raises TensorRejected for a dtype that does not
    travel."""
    name = _WIRE_NAMES.get(tensor.dtype)
    if name is None:
        raise TensorRejected(f"{tensor.dtype} is no dtype of hidden states")
    if not (tensor.is_cpu and tensor.is_contiguous()) or tensor.requires_grad:
        tensor = tensor.detach().to("cpu").contiguous()
    return name, tuple(tensor.shape), bytes_of(tensor)


def from_wire(
    dtype_name: str,
    shape: Sequence[int],
    buffer: Buffer,
    *,
    expect_shape: Sequence[int | None],
    max_bytes: int = MAX_WIRE_BYTES,
) -> Tensor:
    """The hidden states a peer sent, over the buffer's own memory where it is aligned (int8: in float32): treat them as
    read-only and keep them no longer than the buffer. A None in `expect_shape`, which is that of the hidden states,
    takes any size. Raises TensorRejected unless dtype, shape and length fit each other and every number is finite."""
    dtype = wire_dtype(dtype_name)
    if not shape or len(shape) != len(expect_shape):
        raise TensorRejected(f"expected {_shown(expect_shape)}, not {list(shape)[:8]}")
    for got in shape:
        if type(got) is not int or got < 1:
            raise TensorRejected(f"expected {_shown(expect_shape)}, not {list(shape)}")
    packed = dtype is torch.int8
    given = (*shape[:-1], unpacked_size(shape[-1])) if packed else shape
    for want, got in zip(expect_shape, given, strict=True):
        if want is not None and want != got:
            raise TensorRejected(f"expected {_shown(expect_shape)}, not {list(shape)}")
    size = prod(shape) * dtype.itemsize
    if size > max_bytes or size != len(buffer):
        raise TensorRejected(f"{list(shape)} of {dtype_name} is {size} bytes; {len(buffer)} came, {max_bytes} may")
    tensor = _over(buffer, dtype).reshape(tuple(shape))
    if packed:
        return unpack(tensor)
    if not is_finite(tensor):
        raise TensorRejected("a hidden state holds NaN or infinity")
    return tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether every number is finite. One pass over the data: a sum is finite only if its terms are, and where a sum of
    finite terms overflows each term is looked at."""
    return isfinite(tensor.sum(dtype=torch.float32).item()) or bool(torch.isfinite(tensor).all())


def _over(buffer: Buffer, dtype: torch.dtype) -> Tensor:
    tensor = torch.frombuffer(buffer, dtype=dtype)
    if tensor.data_ptr() % dtype.itemsize:
        return torch.frombuffer(bytearray(buffer), dtype=dtype)
    return tensor


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
