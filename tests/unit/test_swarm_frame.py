"""Frames: what is refused, what is copied, and what a length alone can cost."""

from __future__ import annotations

import msgspec
import pytest
from books import receipt
from swarm_peers import step_of

from corolla_core.protocol.errors import MalformedMessage
from corolla_core.swarm.frame import MAX_BODY_BYTES, PREFIX, FrameReader, decode, decode_message, encode, payload_bytes
from corolla_core.swarm.messages import Close, Fault, Ping, Receipt, Result, Tensor

SESSION = bytes(range(16))


def joined(*args: object) -> bytes:
    return b"".join(encode(*args))  # type: ignore[arg-type]


def feed(reader: FrameReader, data: bytes, *, piece: int = 1 << 30) -> list[tuple[object, memoryview]]:
    frames = []
    while data:
        buffer = reader.get_buffer()
        count = min(len(buffer), len(data), piece)
        buffer[:count] = data[:count]
        data = data[count:]
        reader.filled(count)
        while (frame := reader.next()) is not None:
            frames.append(frame)
    return frames


def test_a_step_comes_back_with_its_tensor() -> None:
    payload = bytes(range(256)) * 2
    message, got = decode(memoryview(joined(step_of(payload), payload)))
    assert message == step_of(payload)
    assert got == payload


def test_a_large_payload_is_not_copied_on_its_way_out() -> None:
    payload = bytes(1_000_000)
    head, tail = encode(step_of(payload), payload)
    assert isinstance(tail, memoryview)
    assert tail.obj is payload
    assert len(head) < 100


@pytest.mark.parametrize("size", [0, 2, 30_000, 40_000, 300_000, 2_000_000])
@pytest.mark.parametrize("piece", [1, 7, 100_000, 1 << 30])
def test_frames_of_any_size_survive_any_cutting(size: int, piece: int) -> None:
    if size > 100_000 and piece < 100:
        piece = 4999
    payload = bytes(i * 7 & 255 for i in range(size))
    step = step_of(payload) if size else Close(SESSION)
    stream = (joined(step, payload or None) + joined(Ping(5))) * 3
    frames = feed(FrameReader(), stream, piece=piece)
    assert [message for message, _ in frames] == [step, Ping(5)] * 3
    assert [bytes(got) for _, got in frames] == [payload, b""] * 3


@pytest.mark.parametrize("size", [2, 40_000])
def test_payloads_are_owned_and_read_only(size: int) -> None:
    reader = FrameReader()
    first, second = b"a" * size, b"b" * size
    [(_, kept)] = feed(reader, joined(step_of(first), first))
    feed(reader, joined(step_of(second), second))
    assert kept == first
    assert kept.readonly


def test_a_length_alone_reserves_no_memory_before_the_header_is_good() -> None:
    reader = FrameReader()
    with pytest.raises(MalformedMessage):
        feed(reader, PREFIX.pack(MAX_BODY_BYTES, 3) + b"\x93\x01\x02")


@pytest.mark.parametrize(
    "frame",
    [
        PREFIX.pack(MAX_BODY_BYTES + 1, 10),
        PREFIX.pack(2**32 - 1, 2**32 - 1),
        PREFIX.pack(100_000, 64 * 1024 + 1),
        PREFIX.pack(3, 0),
        PREFIX.pack(10, 7),
        PREFIX.pack(4, 0),
    ],
)
def test_lengths_that_cannot_be_are_refused(frame: bytes) -> None:
    with pytest.raises(MalformedMessage):
        feed(FrameReader(), frame)
    with pytest.raises(MalformedMessage):
        decode(memoryview(frame))


def test_a_payload_must_be_exactly_the_declared_tensor() -> None:
    payload = bytes(64)
    whole = joined(step_of(payload), payload)
    longer = PREFIX.pack(len(whole) - 4 + 2, PREFIX.unpack_from(whole)[1]) + whole[8:] + b"xx"
    with pytest.raises(MalformedMessage):
        decode(memoryview(longer))
    with pytest.raises(MalformedMessage):
        feed(FrameReader(), longer)
    header = joined(Close(SESSION))
    smuggled = PREFIX.pack(len(header) - 4 + 5, PREFIX.unpack_from(header)[1]) + header[8:] + b"stuff"
    with pytest.raises(MalformedMessage):
        feed(FrameReader(), smuggled)
    with pytest.raises(MalformedMessage):
        encode(step_of(payload), payload[:-1])
    with pytest.raises(MalformedMessage):
        encode(Close(SESSION), b"stuff")


def test_a_tensor_larger_than_any_memory_is_refused_by_its_shape() -> None:
    huge = Result(SESSION, 1, 0, Tensor("float32", [2**31] * 4))
    assert payload_bytes(huge) == 4 * 2**124
    with pytest.raises(MalformedMessage):
        encode(huge, b"")


@pytest.mark.parametrize("dtype", ["float64", "int64", "object", "", "torch.float32"])
def test_a_dtype_that_never_travels_is_refused(dtype: str) -> None:
    with pytest.raises(MalformedMessage):
        encode(Result(SESSION, 1, 0, Tensor(dtype, [1])), bytes(8))


def test_a_deeply_nested_fault_is_refused_and_not_a_crash() -> None:
    nested = b"\x91" * 60_000 + b"\x00"
    header = b"\x94\xa5fault\x81\xa1e" + nested + b"\xc0\xc0"
    with pytest.raises(MalformedMessage):
        decode(memoryview(PREFIX.pack(4 + len(header), len(header)) + header))


@pytest.mark.parametrize(
    "change",
    [
        {"numeric_class": "fp1"},
        {"wire": "float8"},
        {"span": {"start": 9, "end": 3}},
        {"n_pos": 0},
        {"batch": 0},
        {"batch": -1},
        {"t_in": 9, "t_out": 8},
        {"order_root": b"short"},
        {"session_id": bytes(15)},
    ],
)
def test_a_receipt_that_makes_no_sense_is_refused_where_it_is_read(change: dict[str, object]) -> None:
    signed = receipt()
    plain = msgspec.to_builtins(signed, builtin_types=(bytes,))
    plain["receipt"] |= change
    header = msgspec.msgpack.encode(("receipt", plain))
    assert decode_message(memoryview(msgspec.msgpack.encode(Receipt(signed)))) == Receipt(signed)
    with pytest.raises(MalformedMessage):
        decode_message(memoryview(header))


def test_a_header_over_64_kib_is_not_sent() -> None:
    with pytest.raises(MalformedMessage):
        encode(Fault({"message": "x" * 70_000}))
