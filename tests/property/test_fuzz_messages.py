"""Anything a peer can send: no crash, no hang, a typed error, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from any_receipt import signed_receipts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from swarm_peers import RawPeer, Recorder, endpoint_of, new_signer

from corolla_core.protocol.errors import CorollaError, MalformedMessage, NetworkError, from_wire
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.reordering import Reordering
from corolla_core.swarm.certificate import ephemeral_certificate, server_context
from corolla_core.swarm.connection import Connection, Policy
from corolla_core.swarm.dial import dial
from corolla_core.swarm.frame import DTYPE_BYTES, PREFIX, FrameReader, decode, encode, payload_bytes
from corolla_core.swarm.hello import Claim, Greeting, Proof, ServerHello
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.messages import AnyMessage, Close, Endpoint, Fault, Tensor

ALL_MESSAGES = list(AnyMessage.__args__)
MAX_TEST_PAYLOAD = 4096


def values_of(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """Every value msgspec would let through for a field of this type, at its bounds and between."""
    match kind:
        case msgspec.inspect.IntType(ge=low, le=high):
            return st.integers(low, high) | st.sampled_from([low, high])
        case msgspec.inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=high)
        case msgspec.inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=high)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([values_of(each) for each in types])
        case msgspec.inspect.ListType(item_type=item, min_length=low, max_length=high):
            most = 2 if isinstance(item, msgspec.inspect.ListType) else 8  # hypothesis draws so much and no more
            return st.lists(values_of(item), min_size=low or 0, max_size=min(high, most))
        case msgspec.inspect.TupleType(item_types=items):
            return st.tuples(*(values_of(each) for each in items))
        case msgspec.inspect.DictType():
            return st.dictionaries(st.text(max_size=20), plain_values(), max_size=4)
        case msgspec.inspect.StructType(cls=cls) if cls is Tensor:
            return small_tensors()
        case msgspec.inspect.DataclassType(cls=cls) if cls is SignedReceipt:
            return signed_receipts()
        case msgspec.inspect.DataclassType(cls=cls) if cls is Reordering:
            return st.builds(Reordering, st.integers(-(2**63), 2**64 - 1), st.lists(st.integers(0, 9)).map(tuple))
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{each.name: values_of(each.type) for each in fields})
    raise AssertionError(f"no strategy for {kind}")


def plain_values() -> st.SearchStrategy[Any]:
    leaves = (
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=20) | st.text(max_size=20)
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def small_tensors() -> st.SearchStrategy[Tensor]:
    shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)
    return st.builds(Tensor, st.sampled_from(sorted(DTYPE_BYTES)), shapes)


@st.composite
def messages(draw: st.DrawFn) -> tuple[msgspec.Struct, bytes]:
    """Any message of any type with values at random, and the payload it declares."""
    message = draw(values_of(msgspec.inspect.type_info(draw(st.sampled_from(ALL_MESSAGES)))))
    payload = draw(st.binary(min_size=(size := payload_bytes(message)), max_size=size))
    return message, payload


@st.composite
def lying_tensors(draw: st.DrawFn) -> bytes:
    """A well-formed frame whose declared tensor is not its payload."""
    dtype = draw(st.sampled_from([*DTYPE_BYTES, "float64", "object", ""]))
    shape = draw(st.lists(st.integers(1, 2**31), min_size=1, max_size=4))
    body = ["result", draw(st.binary(min_size=16, max_size=16)), 1, 0, [dtype, shape]]
    header = msgspec.msgpack.encode(body)
    payload = draw(st.binary(max_size=MAX_TEST_PAYLOAD))
    return PREFIX.pack(4 + len(header) + len(payload), len(header)) + header + payload


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid frame after a few bytes were changed, dropped or put in."""
    message, payload = draw(messages())
    raw = bytearray(b"".join(encode(message, payload or None)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw) - 1))
        match draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                raw[at] ^= draw(st.integers(1, 255))
            case "cut" if len(raw) > 1:
                del raw[at]
            case _:
                raw.insert(at, draw(st.integers(0, 255)))
    return bytes(raw)


def valid() -> st.SearchStrategy[bytes]:
    return messages().map(lambda pair: b"".join(encode(pair[0], pair[1] or None)))


hostile_bytes = st.lists(st.binary(max_size=200) | mutated() | valid() | lying_tensors(), max_size=4).map(b"".join)


@given(messages())
def test_every_message_comes_back_as_it_went(pair: tuple[msgspec.Struct, bytes]) -> None:
    message, payload = pair
    frame = b"".join(encode(message, payload or None))
    assert decode(memoryview(frame)) == (message, payload)


@given(st.binary(max_size=300) | mutated() | lying_tensors())
def test_decoding_anything_gives_a_message_or_a_typed_error(raw: bytes) -> None:
    try:
        message, payload = decode(memoryview(raw))
    except MalformedMessage:
        return
    assert type(message) in ALL_MESSAGES
    assert len(payload) == payload_bytes(message)
    if isinstance(message, Fault):
        assert isinstance(from_wire(message.error), CorollaError)


@given(
    code=st.sampled_from(["VoucherTooSmall", "NoRoute", "CorollaError", "Nonsense", ""]) | plain_values(),
    message=st.text(max_size=5) | plain_values(),
    data=st.dictionaries(
        st.sampled_from(["owed", "offered", "missing", "else"]),
        st.builds(lambda text: {"int": text}, st.from_regex(r"-*[0-9٣²]{0,100}")) | plain_values(),
    )
    | plain_values(),
)
def test_any_error_a_peer_sends_becomes_one_of_ours(code: object, message: object, data: object) -> None:
    assert isinstance(from_wire({"code": code, "message": message, "data": data}), CorollaError)


@given(hostile_bytes, st.lists(st.integers(1, 300), min_size=1, max_size=20))
def test_the_reader_never_runs_out_of_room_or_of_types(raw: bytes, pieces: list[int]) -> None:
    reader = FrameReader()
    for piece in [*pieces, len(raw) + 1]:
        data, raw = raw[:piece], raw[piece:]
        while data:
            buffer = reader.get_buffer()
            assert len(buffer) > 0
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            data = data[count:]
            reader.filled(count)
            try:
                while (frame := reader.next()) is not None:
                    assert len(frame[1]) == payload_bytes(frame[0])
            except MalformedMessage:
                return
        if not raw:
            return


@st.composite
def hello_frames(draw: st.DrawFn) -> bytes:
    """Well-formed hello frames in any order with values at random."""
    kind = draw(st.sampled_from([Greeting, Claim, Proof]))
    return b"".join(encode(draw(values_of(msgspec.inspect.type_info(kind)))))


hostile_hellos = st.lists(hello_frames() | st.binary(max_size=60) | valid(), max_size=3).map(b"".join)


class Arena:
    """A listener under attack, with a bystander connected to it, on a loop that lives from one example to the next."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.errors: list[dict[str, Any]] = []
        self.server = new_signer()
        self.served = Recorder(self.answer)
        self.listener = Listener(self.server, self.served, policy=Policy(handshake=1.0))
        self.bystander: Connection

    @staticmethod
    def answer(conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        conn.send(message, payload)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        await self.listener.start()
        endpoint = endpoint_of(self.listener, self.server.address)
        self.bystander_heard = Recorder()
        self.bystander = await dial(endpoint, identity=new_signer(), handler=self.bystander_heard)

    async def attack(self, raw: bytes, *, hello: bool, hang_up: bool) -> None:
        peer = (
            await RawPeer.authenticated(self.listener, self.server.address)
            if hello
            else await RawPeer.connect(self.listener.port)
        )
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            peer.writer.write(raw)
            await peer.writer.drain()
        if hang_up:
            peer.writer.transport.abort()
        await self.check_bystander()
        if not hang_up:
            with contextlib.suppress(TimeoutError):
                # What comes back, if anything does, parses.
                async with asyncio.timeout(0.01):
                    while True:
                        await self.read_answer(peer, hello=hello)
        peer.writer.transport.abort()

    async def read_answer(self, peer: RawPeer, *, hello: bool) -> None:
        try:
            frame = await peer.read_frame()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            raise TimeoutError from None  # hung up: nothing more will come
        if hello:
            decode(memoryview(frame))

    async def check_bystander(self) -> None:
        """The bystander still gets its answers, and soon."""
        self.bystander.send(Close(bytes(16)))
        _, message, _ = await asyncio.wait_for(self.bystander_heard.messages.get(), 5)
        assert message == Close(bytes(16))
        assert not self.bystander.closed
        while not self.served.losses.empty():
            conn, error = self.served.losses.get_nowait()
            assert isinstance(error, NetworkError)
            assert conn.closed
        while not self.served.messages.empty():
            self.served.messages.get_nowait()
        assert not self.errors, self.errors

    async def close(self) -> None:
        await self.bystander.close()
        await self.listener.stop()


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def arena(request: pytest.FixtureRequest) -> Iterator[Arena]:
    import uvloop

    factory = uvloop.new_event_loop if request.param == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        field = Arena(runner)
        runner.run(field.open())
        yield field
        runner.run(field.close())


LIVE = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LIVE
@given(raw=hostile_bytes, hang_up=st.booleans())
def test_a_peer_that_proved_its_account_cannot_harm_anyone(arena: Arena, raw: bytes, hang_up: bool) -> None:
    arena.runner.run(arena.attack(raw, hello=True, hang_up=hang_up))


@LIVE
@given(raw=hostile_hellos | hostile_bytes, hang_up=st.booleans())
def test_a_stranger_cannot_harm_anyone(arena: Arena, raw: bytes, hang_up: bool) -> None:
    arena.runner.run(arena.attack(raw, hello=False, hang_up=hang_up))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(min_size=1, max_size=300))
def test_bytes_that_are_no_tls_cannot_harm_anyone(arena: Arena, raw: bytes) -> None:
    async def knock() -> None:
        _reader, writer = await asyncio.open_connection("127.0.0.1", arena.listener.port)
        writer.write(raw)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.transport.abort()
        await arena.check_bystander()

    arena.runner.run(knock())


@settings(max_examples=40, deadline=None)
@given(raw=hostile_hellos | hostile_bytes, after_hello=st.booleans())
def test_a_dialer_survives_whatever_a_server_says(raw: bytes, after_hello: bool) -> None:
    """The other direction: the hostile side listens, with the right certificate and account."""

    async def scene() -> None:
        certificate, server = ephemeral_certificate(), new_signer()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if after_hello:
                peer, hello = RawPeer(reader, writer), ServerHello(server, binding=certificate.hash)
                writer.writelines(encode(hello.start()))
                proof, _ = hello.receive(await peer.read_hello())
                writer.writelines(encode(proof))
            writer.write(raw)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(certificate))
        port = listening.sockets[0].getsockname()[1]
        endpoint = Endpoint(address_bytes(server.address), "127.0.0.1", port, certificate.hash, "")
        heard = Recorder()
        try:
            conn = await dial(endpoint, identity=new_signer(), handler=heard, policy=Policy(handshake=1.0))
        except NetworkError:
            assert not after_hello
        else:
            lost, error = await heard.next_loss()
            assert lost is conn
            assert isinstance(error, NetworkError)
        finally:
            listening.close()

    asyncio.run(scene())
