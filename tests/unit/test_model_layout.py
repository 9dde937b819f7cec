"""Headers of safetensors files, hostile ones above all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from corolla_core.model.layout import DTYPES, LENGTH_BYTES, header_length, parse_header
from corolla_core.model.source import plain_name
from corolla_core.protocol.errors import WeightsCorrupt


def parse(header: Any, *, file_size: int = 10**6) -> Any:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return parse_header(raw, "f.safetensors", file_size=file_size)


def tensor(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_every_dtype_lies_where_safetensors_wrote_it(tmp_path: Path) -> None:
    tensors = {f"t.{name}": torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in DTYPES.items()}
    save_file(tensors, tmp_path / "f.safetensors", metadata={"format": "pt"})
    content = (tmp_path / "f.safetensors").read_bytes()
    length = header_length(content[:LENGTH_BYTES], "f")
    entries = parse(content[LENGTH_BYTES : LENGTH_BYTES + length], file_size=len(content))
    assert set(entries) == set(tensors)
    for name, entry in entries.items():
        raw = torch.frombuffer(bytearray(content[entry.start : entry.end]), dtype=DTYPES[entry.dtype])
        assert torch.equal(raw.reshape(entry.shape).to(torch.float64), tensors[name].to(torch.float64))


@pytest.mark.parametrize(
    "entries",
    [
        {"a": tensor(dtype="F31")},
        {"a": tensor(dtype=4)},
        {"a": tensor(dtype=["F32"])},
        {"a": tensor(shape=[2, 3])},
        {"a": tensor(shape=[-2, -2])},
        {"a": tensor(shape=[2.0, 2])},
        {"a": tensor(shape=[True, 4])},
        {"a": tensor(shape=[1] * 40 + [4])},
        {"a": tensor(shape="22")},
        {"a": tensor(offsets=[0])},
        {"a": tensor(offsets=[16, 0])},
        {"a": tensor(offsets=[-16, 0])},
        {"a": tensor(offsets=[10**6, 10**6 + 16])},
        {"a": tensor(offsets=[0, 16]), "b": tensor(offsets=[8, 24])},
        {"a": tensor(offsets={"0": 1})},
        {"a": None},
        {"a": {}},
        ["a"],
        7,
    ],
)
def test_an_entry_that_lies_is_corrupt(entries: Any) -> None:
    with pytest.raises(WeightsCorrupt):
        parse(entries)


def test_a_tensor_cut_off_by_the_end_of_the_file_is_corrupt() -> None:
    header = json.dumps({"a": tensor()}).encode()
    whole = LENGTH_BYTES + len(header) + 16
    assert parse(header, file_size=whole)["a"].end == whole
    with pytest.raises(WeightsCorrupt):
        parse(header, file_size=whole - 1)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_header_are_corrupt(raw: bytes) -> None:
    try:
        json.loads(raw)
    except ValueError:
        with pytest.raises(WeightsCorrupt):
            parse(raw)


def test_deep_nesting_is_corrupt_and_not_a_crash() -> None:
    with pytest.raises(WeightsCorrupt):
        parse(b"[" * 100_000)


@pytest.mark.parametrize("prefix", [b"", b"\x01", bytes(8), (1).to_bytes(8, "little"), b"\xff" * 8])
def test_an_impossible_header_length_is_corrupt(prefix: bytes) -> None:
    with pytest.raises(WeightsCorrupt):
        header_length(prefix, "f")


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../../x", "c:x", "a\\b", "a\0", "http://x/y", "a?b", "a#b", "%2e%2e/x", 7, None],
)
def test_a_file_name_that_leaves_the_folder_is_refused(name: Any) -> None:
    with pytest.raises(WeightsCorrupt):
        plain_name(name)


@pytest.mark.parametrize("name", ["model.safetensors", "model-00001-of-00002.safetensors", "sub/model.safetensors"])
def test_an_ordinary_file_name_is_kept(name: str) -> None:
    assert plain_name(name) == name
