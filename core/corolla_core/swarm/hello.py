"""The first three frames of a connection: both sides prove their account, bound to this very channel.

    server ── Greeting(version, nonce) ───────────────▶ client
    server ◀── Claim(version, nonce, account, sig) ──── client      sig over hello_digest("client", …)
    server ── Proof(account, sig) ────────────────────▶ client      sig over hello_digest("server", …)

`binding` is the SHA-256 of the server's TLS certificate, or a hash of both libp2p peer ids on a libp2p stream. A relay
that ends TLS itself shows another certificate, so what it relays does not verify; a replayed signature carries old
nonces. The two sides sign different digests, so neither's signature can be given back to it as the other's.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import msgspec
from eth_utils.crypto import keccak
from msgspec import Meta

from corolla_core.protocol.errors import InvalidSignature, MalformedMessage, PeerMisbehaved
from corolla_core.protocol.ids import Address, Hash32, address, address_bytes
from corolla_core.protocol.signature import Signer, recover
from corolla_core.swarm.messages import Account, Hash, Signature

VERSION = 1
MAX_HELLO_BYTES = 1024
NONCE_BYTES = 32

Role = Literal["client", "server"]
Version = Annotated[int, Meta(ge=0, le=2**16 - 1)]


class Greeting(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="greeting"):
    """Server first: a fresh nonce."""

    version: Version
    nonce: Hash


class Claim(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="claim"):
    """Dialer: who it is."""

    version: Version
    nonce: Hash
    account: Account
    signature: Signature


class Proof(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="proof"):
    """Server: who it is."""

    account: Account
    signature: Signature


_decoder: msgspec.msgpack.Decoder[Greeting | Claim | Proof] = msgspec.msgpack.Decoder(Greeting | Claim | Proof)


def decode_hello(header: memoryview) -> Greeting | Claim | Proof:
    """Raises MalformedMessage."""
    try:
        return _decoder.decode(header)
    except (msgspec.MsgspecError, ValueError) as error:  # a tag that is not UTF-8 is a bare ValueError
        raise MalformedMessage(f"hello does not parse: {error}") from None


def hello_digest(role: Role, *, binding: Hash32, server_nonce: bytes, client_nonce: bytes) -> Hash32:
    """What a side signs: `keccak("corolla/hello/v1/" ‖ role ‖ binding ‖ server nonce ‖ client nonce)`."""
    return Hash32(keccak(b"corolla/hello/v1/" + role.encode() + binding + server_nonce + client_nonce))


class Hello(Protocol):
    """One side of the handshake, without I/O."""

    def start(self) -> msgspec.Struct | None:
        """What to send before anything was received."""

    def receive(self, message: object) -> tuple[msgspec.Struct | None, Address | None]:
        """`(what to send, the peer's proven account once it is known)`. Raises PeerMisbehaved."""


class ServerHello:
    """The listening side."""

    def __init__(self, identity: Signer, *, binding: Hash32) -> None:
        self._identity = identity
        self._binding = binding
        self._nonce = secrets.token_bytes(NONCE_BYTES)

    def start(self) -> Greeting:
        return Greeting(VERSION, self._nonce)

    def receive(self, message: object) -> tuple[Proof, Address]:
        if not isinstance(message, Claim):
            raise PeerMisbehaved("expected a Claim")
        _check_version(message.version)
        channel = _Channel(self._binding, self._nonce, message.nonce)
        peer = channel.check("client", message.account, message.signature)
        return Proof(address_bytes(self._identity.address), channel.sign("server", self._identity)), peer


class ClientHello:
    """The dialing side. `expected` is the account the server must prove."""

    def __init__(self, identity: Signer, *, binding: Hash32, expected: Address) -> None:
        self._identity = identity
        self._binding = binding
        self._expected = expected
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._channel: _Channel | None = None

    def start(self) -> None:
        return None

    def receive(self, message: object) -> tuple[Claim | None, Address | None]:
        if self._channel is None and isinstance(message, Greeting):
            _check_version(message.version)
            self._channel = _Channel(self._binding, message.nonce, self._nonce)
            account = address_bytes(self._identity.address)
            return Claim(VERSION, self._nonce, account, self._channel.sign("client", self._identity)), None
        if self._channel is None or not isinstance(message, Proof):
            raise PeerMisbehaved("hello out of order", peer=self._expected)
        peer = self._channel.check("server", message.account, message.signature)
        if peer != self._expected:
            raise PeerMisbehaved(f"it answered as {peer}", peer=self._expected)
        return None, peer


@dataclass(frozen=True, slots=True)
class _Channel:
    binding: Hash32
    server_nonce: bytes
    client_nonce: bytes

    def digest(self, role: Role) -> Hash32:
        return hello_digest(role, binding=self.binding, server_nonce=self.server_nonce, client_nonce=self.client_nonce)

    def sign(self, role: Role, identity: Signer) -> bytes:
        return identity.sign(self.digest(role))

    def check(self, role: Role, account: bytes, signature: bytes) -> Address:
        """The account, if it signed for this channel. Raises PeerMisbehaved."""
        claimed = address(account)
        try:
            signer = recover(self.digest(role), signature)
        except InvalidSignature as error:
            raise PeerMisbehaved(f"hello signature: {error}", peer=claimed) from None
        if signer != claimed:
            raise PeerMisbehaved("the hello is signed by another account or for another channel", peer=claimed)
        return claimed


def _check_version(version: int) -> None:
    if version != VERSION:
        raise PeerMisbehaved(f"peer speaks version {version}, we speak {VERSION}")
