"""What a connection has yet to hand to its transport.

A transport would take everything at once, and asyncio's TLS then moves whole backlogs out of sight of its own counting
(into the socket's transport). So it is fed in slices and only while it is not paused: what waits is counted here, and
tensors wait unencrypted and uncopied.
"""

from __future__ import annotations

import asyncio
from collections import deque

from corolla_core.swarm.frame import Buffer

#: A frame up to this size is joined into one write.
_JOIN_BYTES = 32 * 1024
_SLICE_BYTES = 256 * 1024
_TRANSPORT_BYTES = 64 * 1024


class Outbox:
    """An ordered backlog in front of a transport. `drain` waits until at most `high_water` bytes wait."""

    def __init__(self, transport: asyncio.WriteTransport, *, high_water: int) -> None:
        transport.set_write_buffer_limits(high=_TRANSPORT_BYTES)
        self._transport = transport
        self._high_water = high_water
        self._waiting: deque[Buffer] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._closing = False
        self._drained = asyncio.Event()
        self._drained.set()

    @property
    def buffered(self) -> int:
        """Bytes not yet taken by the operating system, give or take what TLS adds to one slice."""
        return self._waiting_bytes + self._transport.get_write_buffer_size()

    def write(self, buffers: list[Buffer]) -> None:
        """Never blocks."""
        size = sum(map(len, buffers))
        if size <= _JOIN_BYTES:
            self._waiting.append(b"".join(buffers))
        else:
            for buffer in buffers:
                view = memoryview(buffer)
                self._waiting.extend(view[at : at + _SLICE_BYTES] for at in range(0, len(view), _SLICE_BYTES))
        self._waiting_bytes += size
        self._feed()

    def pause(self) -> None:
        """The transport is full."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._feed()

    async def drain(self) -> None:
        """Returns when little waits, or after `clear`."""
        await self._drained.wait()

    def close(self) -> None:
        """Close the transport once everything is handed over."""
        self._closing = True
        self._feed()

    def clear(self) -> None:
        """Forget what waits: it will never be sent."""
        self._waiting.clear()
        self._waiting_bytes = 0
        self._drained.set()

    def _feed(self) -> None:
        while self._waiting and not self._paused:
            buffer = self._waiting.popleft()
            self._waiting_bytes -= len(buffer)
            self._transport.write(buffer)
        if self._waiting_bytes > self._high_water:
            self._drained.clear()
        else:
            self._drained.set()
        if self._closing and not self._waiting:
            self._transport.close()
