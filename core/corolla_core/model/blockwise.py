"""Hidden states as int8: a quarter of float32's bytes on the wire, and an error of 0.6 to 1.2 %.

A row of D numbers is cut into blocks of 64, the last of which may be shorter. Each has the scale absmax / 127, rounded
to float16; its numbers become `round(x / scale)`. On the wire: D codes of one byte, then the scales, little endian.
What was unpacked packs to the same bytes again, so that an audit can compare bytes.

In numpy: of a single row, which is what decoding sends, torch's calls take twice as long.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corolla_core.protocol.errors import TensorRejected
from corolla_core.protocol.receipt import BLOCK, SCALE_BYTES, WireDtype

_LEAST = np.float32(np.finfo(np.float16).tiny)
"""The least that float16 holds to its full precision: a block of smaller numbers is rounded to multiples of it."""


def pack(hidden: Tensor) -> Tensor:
    """[..., D] numbers as [..., W] bytes (dtype int8), W being `WireDtype.INT8.width(D)`.

    A block with NaN, infinity or a number beyond 8.3 million gets a scale that `unpack` refuses."""
    size = hidden.shape[-1]
    rows_ND = hidden.detach().to(device="cpu", dtype=torch.float32).reshape(-1, size).numpy()
    blocks = _blocks(rows_ND)
    packed_NW = np.empty((len(rows_ND), WireDtype.INT8.width(size)), dtype=np.int8)
    with np.errstate(over="ignore", invalid="ignore"):
        scales = np.maximum(np.abs(blocks).max(axis=-1) / np.float32(127), _LEAST).astype(np.float16)
        codes = blocks / scales.astype(np.float32)[..., None]
        np.clip(np.rint(codes, out=codes), -127, 127, out=codes)
        packed_NW[:, :size] = codes.reshape(len(rows_ND), -1)[:, :size]
    packed_NW[:, size:] = scales.view(np.int8)
    return torch.from_numpy(packed_NW).reshape(*hidden.shape[:-1], -1)


def unpack(packed: Tensor) -> Tensor:
    """[..., W] bytes as [..., D] numbers in float32. Raises TensorRejected for a W that no D gives and for scales that
    are not finite."""
    width = packed.shape[-1]
    size = unpacked_size(width)
    packed_NW = packed.reshape(-1, width).numpy()
    scales = np.ascontiguousarray(packed_NW[:, size:]).view(np.float16).astype(np.float32)
    if not np.isfinite(scales).all():
        raise TensorRejected("a scale is NaN or infinity")
    blocks = _blocks(packed_NW[:, :size].astype(np.float32))
    blocks *= scales[..., None]
    return torch.from_numpy(blocks.reshape(len(packed_NW), -1)[:, :size]).reshape(*packed.shape[:-1], size)


def unpacked_size(width: int) -> int:
    """The D whose packed rows have `width` bytes. Raises TensorRejected where there is none."""
    size = width - SCALE_BYTES * -(-width // (BLOCK + SCALE_BYTES))
    if size < 1 or WireDtype.INT8.width(size) != width:
        raise TensorRejected(f"no hidden states have rows of {width} bytes")
    return size


def _blocks(rows_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[N, blocks, 64], the last block filled up with zeros."""
    missing = -rows_ND.shape[1] % BLOCK
    if missing:
        rows_ND = np.pad(rows_ND, ((0, 0), (0, missing)))
    return rows_ND.reshape(len(rows_ND), -1, BLOCK)
