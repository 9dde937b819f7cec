"""Where each tensor lies in a safetensors file. https://github.com/huggingface/safetensors#format

A file is `u64 header length ‖ JSON header ‖ data`. We read the header ourselves, so that any source of bytes (a disk,
an HTTP server) can hand over single tensors; everything in it is hostile until checked here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from corolla_core.protocol.errors import WeightsCorrupt

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
MAX_RANK = 16

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: `dtype` as safetensors names it, `[start, end)` in bytes from the file's beginning."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.start


def header_length(prefix: bytes, file: str) -> int:
    """The length of the JSON header, from a file's first 8 bytes. Raises WeightsCorrupt."""
    length = int.from_bytes(prefix, "little") if len(prefix) == LENGTH_BYTES else -1
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise WeightsCorrupt("not a safetensors file", path=file)
    return length


def parse_header(header: bytes, file: str, *, file_size: int) -> dict[str, TensorEntry]:
    """The tensors of a file by name. Raises WeightsCorrupt unless every tensor's bytes lie inside the file, one
    tensor's after another's, and are as many as its dtype and shape say."""
    try:
        raw = json.loads(header)
        described = {name: _entry(name, file, LENGTH_BYTES + len(header), info) for name, info in _tensors(raw)}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise WeightsCorrupt("the safetensors header does not parse", path=file) from None
    end = LENGTH_BYTES + len(header)
    for entry in sorted(described.values(), key=lambda e: (e.start, e.end)):
        if entry.start < end or entry.end > file_size:
            raise WeightsCorrupt("a tensor lies outside its file or over another; is it truncated?", path=file)
        end = entry.end
    return described


def _tensors(raw: object) -> list[tuple[str, dict[str, object]]]:
    if not isinstance(raw, dict):
        raise TypeError("the header is not a map")
    return [(name, info) for name, info in raw.items() if name != "__metadata__"]


def _entry(name: str, file: str, data_start: int, info: dict[str, object]) -> TensorEntry:
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise TypeError("malformed tensor entry")
    start, end = offsets
    numbers = [*shape, start, end]
    if any(type(n) is not int or n < 0 for n in numbers) or len(shape) > MAX_RANK:
        raise ValueError("malformed tensor entry")
    if end - start != prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError("size, shape and dtype disagree")
    return TensorEntry(name, file, dtype, tuple(shape), data_start + start, data_start + end)


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor of any dtype, row-major; not a copy."""
    if tensor.dtype is torch.float32 and tensor.numel():  # what travels most: nothing for torch to do
        floats: Any = tensor.numpy()
        return memoryview(floats).cast("B")
    raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(raw)
