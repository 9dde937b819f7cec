"""What a node says about itself in the DHT: signed by its account, of bounded size, and soon to expire.

Times are Unix milliseconds. The signature covers the very bytes received, so no two encodings can be confused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from eth_utils.crypto import keccak
from msgspec import Meta

from corolla_core.protocol.errors import InvalidInput, InvalidSignature, MalformedMessage
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, address, address_bytes, hash32
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.signature import Signer, recover
from corolla_core.protocol.span import MAX_BLOCKS, Span
from corolla_core.swarm.frame import DTYPE_BYTES
from corolla_core.swarm.messages import Account, Amount, Big, Endpoint, Hash, Host, Name, Part, Signature

VERSION = 1
MAX_RECORD_BYTES = 2048
DEFAULT_TTL_MS = 60_000
MAX_TTL_MS = 180_000
#: How far two honest clocks may differ.
MAX_SKEW_MS = 10_000
_TAG = b"corolla/announcement/v1"


class NodeState(StrEnum):
    """What a node takes: `ONLINE` new sessions, `DRAINING` only its old ones, `LOADING` and `OFFLINE` nothing."""

    LOADING = "loading"
    ONLINE = "online"
    DRAINING = "draining"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """`account` serves `span` of the model at this address and price until `expires_at`.

    `throughput` is thousandths of a token per second through the whole span; `kv_free_tokens` is how many more
    positions its KV caches can take. Raises InvalidInput for values no peer would accept.
    """

    network: str
    model_root: ModelRoot
    span: Span
    account: Address
    peer_id: str
    host: str
    port: int
    cert_hash: Hash32
    price_per_token_block: int
    numeric_class: NumericClass
    wire_dtypes: tuple[str, ...]
    throughput: int
    kv_free_tokens: int
    state: NodeState
    issued_at: int
    expires_at: int
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InvalidInput(f"announcement version {self.version}, this is {VERSION}")
        if not 0 < self.expires_at - self.issued_at <= MAX_TTL_MS:
            raise InvalidInput(f"an announcement lives at most {MAX_TTL_MS} ms")
        if not self.wire_dtypes or not set(self.wire_dtypes) <= DTYPE_BYTES.keys():
            raise InvalidInput(f"wire dtypes {self.wire_dtypes!r:.80}")
        Price(self.price_per_token_block)

    @property
    def price(self) -> Price:
        return Price(self.price_per_token_block)

    def endpoint(self) -> Endpoint:
        """Where to dial it."""
        return Endpoint(address_bytes(self.account), self.host, self.port, self.cert_hash, self.peer_id)

    def sign(self, signer: Signer) -> SignedAnnouncement:
        """Raises InvalidInput when the signer is not the account or a field is out of the wire's bounds."""
        if signer.address != self.account:
            raise InvalidInput(f"{signer.address} cannot announce for {self.account}")
        body = _encoder.encode(_to_wire(self))
        try:
            _body_decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"announcement: {error}") from None
        return SignedAnnouncement(self, body, signer.sign(_digest(body)))


@dataclass(frozen=True, slots=True)
class SignedAnnouncement:
    """An announcement, the bytes that were signed, and the signature."""

    announcement: Announcement
    body: bytes
    signature: bytes

    def encode(self) -> bytes:
        return _encoder.encode(_WireSigned(self.body, self.signature))

    @classmethod
    def decode(cls, raw: bytes) -> SignedAnnouncement:
        """A record from a peer, its signature checked against its account.

        Raises MalformedMessage or InvalidSignature. Whether it has expired is for `fresh` to say.
        """
        if len(raw) > MAX_RECORD_BYTES:
            raise MalformedMessage(f"a record of {len(raw)} bytes")
        try:
            wire = _signed_decoder.decode(raw)
            announcement = _from_wire(_body_decoder.decode(wire.body))
        except (msgspec.MsgspecError, InvalidInput, ValueError) as error:
            raise MalformedMessage(f"announcement does not parse: {error}") from None
        if recover(_digest(wire.body), wire.signature) != announcement.account:
            raise InvalidSignature("an announcement is signed by its account")
        return cls(announcement, wire.body, wire.signature)

    def fresh(self, now_ms: int) -> bool:
        """Whether it is neither expired nor from the future."""
        return self.announcement.issued_at <= now_ms + MAX_SKEW_MS and now_ms < self.announcement.expires_at


class _Wire(Part, frozen=True):
    version: Annotated[int, Meta(ge=1, le=2**16)]
    network: Name
    model_root: Hash
    start: Annotated[int, Meta(ge=0, lt=MAX_BLOCKS)]
    end: Annotated[int, Meta(ge=1, le=MAX_BLOCKS)]
    account: Account
    peer_id: Annotated[str, Meta(max_length=128)]
    host: Host
    port: Annotated[int, Meta(ge=1, le=65535)]
    cert_hash: Hash
    price_per_token_block: Amount
    numeric_class: NumericClass
    wire_dtypes: Annotated[list[Name], Meta(min_length=1, max_length=8)]
    throughput: Big
    kv_free_tokens: Big
    state: NodeState
    issued_at: Big
    expires_at: Big


class _WireSigned(Part, frozen=True):
    body: Annotated[bytes, Meta(max_length=MAX_RECORD_BYTES)]
    signature: Signature


_encoder = msgspec.msgpack.Encoder()
_body_decoder = msgspec.msgpack.Decoder(_Wire)
_signed_decoder = msgspec.msgpack.Decoder(_WireSigned)


def _digest(body: bytes) -> Hash32:
    return Hash32(keccak(_TAG + body))


def _to_wire(a: Announcement) -> _Wire:
    return _Wire(
        version=a.version,
        network=a.network,
        model_root=a.model_root,
        start=a.span.start,
        end=a.span.end,
        account=address_bytes(a.account),
        peer_id=a.peer_id,
        host=a.host,
        port=a.port,
        cert_hash=a.cert_hash,
        price_per_token_block=a.price_per_token_block.to_bytes(16, "big"),
        numeric_class=a.numeric_class,
        wire_dtypes=list(a.wire_dtypes),
        throughput=a.throughput,
        kv_free_tokens=a.kv_free_tokens,
        state=a.state,
        issued_at=a.issued_at,
        expires_at=a.expires_at,
    )


def _from_wire(w: _Wire) -> Announcement:
    return Announcement(
        version=w.version,
        network=w.network,
        model_root=ModelRoot(w.model_root),
        span=Span(w.start, w.end),
        account=address(w.account),
        peer_id=w.peer_id,
        host=w.host,
        port=w.port,
        cert_hash=hash32(w.cert_hash),
        price_per_token_block=int.from_bytes(w.price_per_token_block, "big"),
        numeric_class=w.numeric_class,
        wire_dtypes=tuple(w.wire_dtypes),
        throughput=w.throughput,
        kv_free_tokens=w.kv_free_tokens,
        state=w.state,
        issued_at=w.issued_at,
        expires_at=w.expires_at,
    )
