"""hivemind's DHT, taught to hold nothing but valid announcements. Importing this takes seconds (hivemind does)."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.p2p import P2P, PeerID
from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.timed_storage import TimedStorage, ValueWithExpiration

from corolla_core.protocol.errors import ConfigError, InvalidInput, NetworkError
from corolla_core.protocol.ids import Address, ModelRoot, address_bytes
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import MAX_RECORD_BYTES, MAX_SKEW_MS, MAX_TTL_MS, SignedAnnouncement

BLOCKS_PER_KEY = 16
#: A key holds the nodes of one share of the accounts, so that no key holds more than its share of a large swarm.
SHARDS = 8
#: What one DHT peer stores at most, whoever asks it to: keys, and records under one key.
MAX_KEYS = 16_384
MAX_RECORDS = 512
#: Records whose signatures need not be checked again: those of a swarm of ten thousand nodes, under every key.
MAX_REMEMBERED = 20_000

#: What one hung DHT peer costs a search, once until it is blacklisted for a while (a dead one is refused at once).
_CALL_SECONDS = 2.0
_MSGPACK_OVERHEAD = 5
_bytes_decoder = msgspec.msgpack.Decoder(bytes)


def now_ms() -> int:
    return int(time.time() * 1000)


def key_names(network: str, model_root: ModelRoot, span: Span, shards: Iterable[int] = range(SHARDS)) -> list[str]:
    """The keys a span is announced under: of each shard one for every 16 blocks it touches."""
    first, last = span.start // BLOCKS_PER_KEY, (span.end - 1) // BLOCKS_PER_KEY
    return [
        f"corolla/{network}/{model_root.hex()}/{bucket}/{shard}"
        for bucket in range(first, last + 1)
        for shard in shards
    ]


def shard_of(account: Address) -> int:
    """The one share of the accounts that this one belongs to."""
    return address_bytes(account)[-1] % SHARDS


@lru_cache(maxsize=MAX_REMEMBERED)
def opened(raw: bytes) -> SignedAnnouncement:
    """`SignedAnnouncement.decode`, once for each record however many peers give it. Raises MalformedMessage or
    InvalidSignature."""
    return SignedAnnouncement.decode(raw)


class AnnouncementValidator(RecordValidatorBase):  # type: ignore[misc]
    """Refuses every record that is not an announcement of this network, signed by the account that is its subkey,
    stored under a key of its own span, and expiring when it says.

    A record that expired on its way is not refused (storage drops it): refusing one refuses its whole dictionary.
    """

    def __init__(self, network: str, *, clock: Callable[[], int] = now_ms) -> None:
        self._network = network
        self._clock = clock

    def validate(self, record: DHTRecord) -> bool:
        if len(record.value) > MAX_RECORD_BYTES + _MSGPACK_OVERHEAD:
            return False
        try:
            subkey = _bytes_decoder.decode(record.subkey)
            announcement = opened(_bytes_decoder.decode(record.value)).announcement
        except (msgspec.MsgspecError, ValueError, InvalidInput):
            return False
        return (
            announcement.network == self._network
            and subkey == address_bytes(announcement.account)
            and record.expiration_time == expiration(announcement.expires_at)
            and announcement.expires_at <= self._clock() + MAX_TTL_MS + MAX_SKEW_MS
            and record.key
            in _key_ids(self._network, announcement.model_root, announcement.span, shard_of(announcement.account))
        )


class BoundedStorage(DHTLocalStorage):  # type: ignore[misc]
    """hivemind's storage without two of its faults: memory without bound (here the records that expire first make
    room), and an older record, offered again, cutting short the life of the newer one it fails to replace."""

    def __init__(self) -> None:
        super().__init__(maxsize=MAX_KEYS)

    def get(self, key: Any) -> ValueWithExpiration | None:
        """A copy, because hivemind merges what other peers answer into what it gets here."""
        return _rebuilt(super().get(key))

    def store(self, key: Any, value: Any, expiration_time: float, subkey: Any = None) -> bool:
        """Only dictionaries are ever stored: the validator refuses records without a subkey."""
        return subkey is not None and self.store_subkey(key, subkey, value, expiration_time)

    def store_subkey(self, key: Any, subkey: Any, value: bytes, expiration_time: float) -> bool:
        found = super().get(key)
        records = DictionaryDHTValue(MAX_RECORDS) if found is None else found.value
        known = records.data.get(subkey)
        if known is not None and known.expiration_time >= expiration_time:
            return False
        if not records.store(subkey, value, expiration_time):
            return False
        if found is None or expiration_time > found.expiration_time:
            TimedStorage.store(self, key, records, expiration_time)
        return True


class StrictNode(DHTNode):  # type: ignore[misc]
    """A DHT node that rebuilds what peers answer before believing it.

    hivemind validates records, but trusts the limits and the expiry a peer puts around them: an infinite expiry would
    end every search at that peer, and a limit that is no number would break it.
    """

    async def _call_find_with_blacklist(self, peer: Any, keys: Collection[Any]) -> Any:
        response = await super()._call_find_with_blacklist(peer, keys)
        if not response:
            return response
        return {key: (_rebuilt(found), peers) for key, (found, peers) in response.items()}


async def join(control: str, *, network: str, bootstrap: Sequence[str], client_mode: bool) -> tuple[P2P, StrictNode]:
    """Join over the p2pd at `control`. Raises NetworkError when none of the bootstrap peers answers."""
    p2p = await P2P.replicate(Multiaddr(control))
    try:
        node = await StrictNode.create(
            p2p=p2p,
            initial_peers=list(bootstrap) or None,
            client_mode=client_mode,
            record_validator=AnnouncementValidator(network),
            wait_timeout=_CALL_SECONDS,
            # No caches: who looks up wants what is stored now, and memory stays bounded.
            cache_locally=False,
            cache_nearest=0,
            cache_on_store=False,
            cache_refresh_before_expiry=0,
            reuse_get_requests=False,
            strict=False,
        )
    except RuntimeError as error:
        await p2p.shutdown()
        raise NetworkError(f"no bootstrap peer answers: {error}") from None
    except BaseException:
        await p2p.shutdown()
        raise
    node.protocol.storage = BoundedStorage()
    node.protocol.cache = BoundedStorage()
    return p2p, node


async def rejoin(node: StrictNode, bootstrap: Sequence[str]) -> None:
    """Ask the bootstrap peers again if we know nobody any more (all of them may have restarted)."""
    if bootstrap and not node.protocol.routing_table.uid_to_peer_id:
        await asyncio.gather(*(node.protocol.call_ping(peer_of(maddr)) for maddr in bootstrap))


def peer_of(maddr: str) -> PeerID:
    """The peer id a multiaddr ends in. Raises ConfigError."""
    try:
        return PeerID.from_base58(Multiaddr(maddr)["p2p"])
    except Exception as error:  # the parsers under it raise half a dozen unrelated kinds
        raise ConfigError(f"not a bootstrap multiaddr with a /p2p/ part: {maddr!r:.200} ({error})") from None


def ensure_identity(path: Path) -> PeerID:
    """Who the libp2p key at `path` is, made if there is none, readable by this user alone."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        P2P.generate_identity(str(path))
    return PeerID.from_identity(path.read_bytes())


def expiration(expires_at_ms: int) -> float:
    """The expiry a record carries in the DHT, in seconds."""
    return expires_at_ms / 1000


def _rebuilt(found: ValueWithExpiration | None) -> ValueWithExpiration | None:
    if found is None or not isinstance(found.value, DictionaryDHTValue):
        return None
    clean = DictionaryDHTValue(MAX_RECORDS)
    for subkey, (value, expires) in itertools.islice(found.value.data.items(), MAX_RECORDS):
        if math.isfinite(expires):
            clean.store(subkey, value, expires)
    return ValueWithExpiration(clean, clean.latest_expiration_time) if len(clean) else None


@lru_cache(maxsize=4096)
def _key_ids(network: str, model_root: ModelRoot, span: Span, shard: int) -> frozenset[bytes]:
    return frozenset(DHTID.generate(name).to_bytes() for name in key_names(network, model_root, span, [shard]))
