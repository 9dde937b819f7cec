"""Peers for the swarm's tests: a handler that remembers, a listener at hand, and a peer that sends any bytes."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from corolla_core.protocol.errors import NetworkError
from corolla_core.protocol.ids import Address, address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.certificate import client_context
from corolla_core.swarm.connection import Connection, Handler, Policy
from corolla_core.swarm.frame import PREFIX, FrameReader, encode
from corolla_core.swarm.hello import ClientHello, decode_hello
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import AnyMessage, Endpoint, Step, Tensor

HASTY = Policy(handshake=0.5, idle=0.2, dead=1.0, close=0.2)


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Import it to run a module's tests on both loops."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def new_signer() -> Signer:
    return Signer(secrets.token_bytes(32))


def step_of(payload: bytes, *, session: bytes = bytes(16), number: int = 1) -> Step:
    """A Step that declares exactly these bytes as float16 values."""
    return Step(session, number, 0, Tensor("float16", [1, 1, len(payload) // 2]), 1)


@dataclass
class Recorder:
    """Remembers what a Handler is told; `answer` is called with every message."""

    answer: Callable[[Connection, AnyMessage, memoryview], None] | None = None
    messages: asyncio.Queue[tuple[Connection, AnyMessage, memoryview]] = field(default_factory=asyncio.Queue)
    losses: asyncio.Queue[tuple[Connection, NetworkError | None]] = field(default_factory=asyncio.Queue)

    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        self.messages.put_nowait((conn, message, payload))
        if self.answer is not None:
            self.answer(conn, message, payload)

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None:
        self.losses.put_nowait((conn, error))

    async def next_message(self) -> tuple[Connection, AnyMessage, memoryview]:
        async with asyncio.timeout(5):
            return await self.messages.get()

    async def next_loss(self) -> tuple[Connection, NetworkError | None]:
        async with asyncio.timeout(5):
            return await self.losses.get()


def echo(conn: Connection, message: AnyMessage, payload: memoryview) -> None:
    conn.send(message, payload)


def endpoint_of(listener: Listener, account: Address) -> Endpoint:
    return Endpoint(address_bytes(account), "127.0.0.1", listener.port, listener.cert_hash, "")


@contextlib.asynccontextmanager
async def listening(
    identity: Signer, handler: Handler, *, policy: Policy | None = None, max_unauthenticated: int = 128
) -> AsyncIterator[Listener]:
    listener = Listener(identity, handler, policy=policy, max_unauthenticated=max_unauthenticated)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


class RawPeer:
    """A dialer that can do the hello as it should and then send whatever bytes it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, *, context: ssl.SSLContext | None = None) -> RawPeer:
        """TLS only, no hello yet."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context or client_context(), server_hostname="corolla"
        )
        return cls(reader, writer)

    @classmethod
    async def authenticated(cls, listener: Listener, server: Address, *, identity: Signer | None = None) -> RawPeer:
        peer = await cls.connect(listener.port)
        hello = ClientHello(identity or new_signer(), binding=listener.cert_hash, expected=server)
        claim, _ = hello.receive(await peer.read_hello())
        assert claim is not None
        peer.writer.writelines(encode(claim))
        hello.receive(await peer.read_hello())
        return peer

    async def read_frame(self) -> bytes:
        """One whole frame. Raises IncompleteReadError at the end of the stream."""
        prefix = await self.reader.readexactly(PREFIX.size)
        body, _header = PREFIX.unpack(prefix)
        return prefix + await self.reader.readexactly(body - 4)

    async def read_hello(self) -> object:
        reader = FrameReader()
        reader.decode_header = decode_hello
        frame = await self.read_frame()
        reader.get_buffer()[: len(frame)] = frame
        reader.filled(len(frame))
        found = reader.next()
        assert found is not None
        return found[0]

    async def ended(self) -> bool:
        """Whether the other side hangs up within 5 s, whatever it says before."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(5):
                while await self.reader.read(65536):
                    pass
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
