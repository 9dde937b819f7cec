"""How a message travels: `u32 body length ‖ u32 header length ‖ msgpack header ‖ payload`, integers big endian.

The body is everything after the first length. The payload is the raw bytes of the tensor the header declares, and is
empty for a message that declares none. The same framing runs over TLS and over a libp2p stream.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from corolla_core.protocol.errors import InvalidInput, MalformedMessage, OutOfCapacity
from corolla_core.swarm.messages import AnyMessage, Tensor

PREFIX = struct.Struct(">II")
MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

Buffer = bytes | bytearray | memoryview

_LENGTH_BYTES = 4
#: Payloads up to this are copied out of the shared receive buffer; larger ones are read in place.
_SMALL_PAYLOAD_BYTES = 32 * 1024
_RECEIVE_BYTES = 128 * 1024
_NO_PAYLOAD = memoryview(b"")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def payload_bytes(message: object) -> int:
    """How many payload bytes must follow `message`. Raises MalformedMessage for a dtype that never travels."""
    tensor: Tensor | None = getattr(message, "tensor", None)
    if tensor is None:
        return 0
    size = DTYPE_BYTES.get(tensor.dtype)
    if size is None:
        raise MalformedMessage(f"tensors of dtype {tensor.dtype!r:.80} do not travel")
    return size * math.prod(tensor.shape)


def encode(message: msgspec.Struct, payload: Buffer | None = None) -> list[Buffer]:
    """The frame as buffers to write in order; the payload is passed through, never copied.

    Raises MalformedMessage when the payload is not exactly the declared tensor or the frame is over the limits.
    """
    view = _NO_PAYLOAD if payload is None else memoryview(payload)
    if not view.c_contiguous:
        raise MalformedMessage("a payload lies in one piece")
    if view.nbytes != payload_bytes(message):
        raise MalformedMessage(f"{view.nbytes} payload bytes, but the message declares {payload_bytes(message)}")
    header = _encoder.encode(message)
    body = _LENGTH_BYTES + len(header) + view.nbytes
    if len(header) > MAX_HEADER_BYTES or body > MAX_BODY_BYTES:
        raise MalformedMessage(f"a frame of {len(header)} header bytes and {body} in all is over the limit")
    head = PREFIX.pack(body, len(header)) + header
    return [head, view.cast("B")] if view.nbytes else [head]


def decode(frame: memoryview, *, max_body: int = MAX_BODY_BYTES) -> tuple[AnyMessage, memoryview]:
    """The message and payload of one whole frame; the payload is a view into `frame`. Raises MalformedMessage."""
    if len(frame) < PREFIX.size:
        raise MalformedMessage("a frame has 8 bytes of lengths")
    payload_start, payload_size = _measure(frame, max_body)
    if len(frame) != payload_start + payload_size:
        raise MalformedMessage(f"a frame of {payload_start + payload_size} bytes came as {len(frame)}")
    message = decode_message(frame[PREFIX.size : payload_start])
    _check_payload(message, payload_size)
    return message, frame[payload_start:]


def decode_message(header: memoryview) -> AnyMessage:
    """The message of a msgpack header. Raises MalformedMessage."""
    try:
        return _decoder.decode(header)
    except (msgspec.MsgspecError, InvalidInput, ValueError, RecursionError) as error:
        raise MalformedMessage(f"header does not parse: {error}") from None


class Budget:
    """How many bytes of unfinished large payloads may be held at once, over all readers that share it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Raises OutOfCapacity."""
        if self.used + size > self.limit:
            raise OutOfCapacity("too much is being received at once", needed=size, free=self.limit - self.used)
        self.used += size

    def give_back(self, size: int) -> None:
        self.used -= size


class FrameReader:
    """Cuts a byte stream into frames without I/O: fill `get_buffer()`, call `filled(n)`, then `next()` until None.

    Small frames come through one reused buffer. The payload of a large one is read straight into memory of its own,
    which the system commits only as bytes arrive, so that announcing 64 MiB costs a peer's victim nothing. Payloads
    returned are read-only and owned by whoever holds them.
    """

    def __init__(self, *, max_body: int = MAX_BODY_BYTES, budget: Budget | None = None) -> None:
        self.max_body = max_body
        self._budget = budget or Budget(MAX_BODY_BYTES)
        self.decode_header: Callable[[memoryview], Any] = decode_message
        self._buffer = memoryview(bytearray(_RECEIVE_BYTES))
        self._start = 0
        self._end = 0
        self._large: tuple[Any, memoryview] | None = None
        self._large_filled = 0

    def close(self) -> None:
        """Give back what an unfinished payload holds; the reader is of no use afterwards."""
        if self._large is not None:
            self._budget.give_back(len(self._large[1]))
            self._large = None

    def get_buffer(self) -> memoryview:
        """Where the next bytes go; never empty as long as `next()` was called until it gave None."""
        if self._large is not None:
            return self._large[1][self._large_filled :]
        return self._buffer[self._end :]

    def filled(self, count: int) -> None:
        if self._large is not None:
            self._large_filled += count
        else:
            self._end += count

    def next(self) -> tuple[Any, memoryview] | None:
        """The next whole frame, or None until more bytes come.

        Raises MalformedMessage, or OutOfCapacity for a payload that does not fit the budget; the stream is then lost.
        """
        if self._large is not None:
            return self._finish_large()
        have = self._end - self._start
        if have >= PREFIX.size:
            payload_start, payload_size = _measure(self._buffer[self._start :], self.max_body)
            if have >= payload_start + payload_size:
                return self._take_small(payload_start, payload_size)
            if have >= payload_start and payload_size > _SMALL_PAYLOAD_BYTES:
                self._begin_large(payload_start, payload_size)
                return None
        self._compact()
        return None

    def _take_small(self, payload_start: int, payload_size: int) -> tuple[Any, memoryview]:
        begin, split = self._start, self._start + payload_start
        message = self.decode_header(self._buffer[begin + PREFIX.size : split])
        _check_payload(message, payload_size)
        payload = memoryview(bytes(self._buffer[split : split + payload_size])) if payload_size else _NO_PAYLOAD
        self._start = split + payload_size
        if self._start == self._end:
            self._start = self._end = 0
        return message, payload

    def _begin_large(self, payload_start: int, payload_size: int) -> None:
        split = self._start + payload_start
        message = self.decode_header(self._buffer[self._start + PREFIX.size : split])
        _check_payload(message, payload_size)
        self._budget.take(payload_size)
        target = np.empty(payload_size, dtype=np.uint8).data
        self._large_filled = self._end - split
        target[: self._large_filled] = self._buffer[split : self._end]
        self._large = (message, target)
        self._start = self._end = 0

    def _finish_large(self) -> tuple[Any, memoryview] | None:
        assert self._large is not None
        message, target = self._large
        if self._large_filled < len(target):
            return None
        self._large, self._large_filled = None, 0
        self._budget.give_back(len(target))
        return message, target.toreadonly()

    def _compact(self) -> None:
        # Room for the largest header and the largest small payload must lie behind `_start`.
        if self._start and len(self._buffer) - self._start < PREFIX.size + MAX_HEADER_BYTES + _SMALL_PAYLOAD_BYTES:
            have = self._end - self._start
            self._buffer[:have] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, have


def _measure(prefix: memoryview, max_body: int) -> tuple[int, int]:
    """`(where the payload starts, its size)`, both in bytes from the start of the frame."""
    body, header = PREFIX.unpack_from(prefix)
    if body > max_body or header > MAX_HEADER_BYTES or _LENGTH_BYTES + header > body:
        raise MalformedMessage(f"a frame declares {body} bytes with {header} of header")
    return PREFIX.size + header, body - _LENGTH_BYTES - header


def _check_payload(message: object, size: int) -> None:
    if payload_bytes(message) != size:
        raise MalformedMessage(f"{size} payload bytes, but the message declares {payload_bytes(message)}")
