"""Announcements: what the DHT stores, what it refuses, and which of two is believed."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord
from hivemind.utils.serializer import MSGPackSerializer
from hivemind.utils.timed_storage import ValueWithExpiration
from hypothesis import given
from hypothesis import strategies as st
from swarm_peers import new_signer

from corolla_core.protocol.errors import InvalidInput, InvalidSignature, MalformedMessage
from corolla_core.protocol.ids import Hash32, ModelRoot, address_bytes
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.swarm import dht
from corolla_core.swarm.announcement import (
    MAX_RECORD_BYTES,
    MAX_SKEW_MS,
    MAX_TTL_MS,
    Announcement,
    NodeState,
    SignedAnnouncement,
)
from corolla_core.swarm.dht import (
    BLOCKS_PER_KEY,
    MAX_RECORDS,
    SHARDS,
    AnnouncementValidator,
    BoundedStorage,
    expiration,
    key_names,
    opened,
    shard_of,
)
from corolla_core.swarm.directory import newest

MODEL = ModelRoot(b"m" * 32)
SIGNER = new_signer()
NOW = 1_800_000_000_000


def announcement(signer: Signer = SIGNER, **changes: Any) -> Announcement:
    base = Announcement(
        network="devnet",
        model_root=MODEL,
        span=Span(3, 20),
        account=signer.address,
        peer_id="12D3KooW",
        host="192.0.2.7",
        port=4001,
        cert_hash=Hash32(b"c" * 32),
        price_per_token_block=10**12,
        numeric_class=NumericClass.FP32,
        wire_dtypes=("float32", "bfloat16"),
        throughput=14_500,
        kv_free_tokens=8192,
        state=NodeState.ONLINE,
        issued_at=NOW,
        expires_at=NOW + 60_000,
    )
    return replace(base, **changes)


def record(
    signed: SignedAnnouncement | bytes,
    *,
    key: str | None = None,
    subkey: Any = None,
    expires: float | None = None,
) -> DHTRecord:
    """The record as the DHT would carry it, with any part replaced."""
    about = announcement() if isinstance(signed, bytes) else signed.announcement
    raw = signed if isinstance(signed, bytes) else signed.encode()
    name = key or key_names("devnet", about.model_root, about.span, [shard_of(about.account)])[0]
    subkey_bytes = MSGPackSerializer.dumps(address_bytes(about.account) if subkey is None else subkey)
    when = expiration(about.expires_at) if expires is None else expires
    return DHTRecord(DHTID.generate(name).to_bytes(), subkey_bytes, MSGPackSerializer.dumps(raw), when)


VALIDATOR = AnnouncementValidator("devnet", clock=lambda: NOW)


def test_an_announcement_survives_its_journey_and_names_its_endpoint() -> None:
    signed = announcement().sign(SIGNER)
    assert SignedAnnouncement.decode(signed.encode()) == signed
    endpoint = signed.announcement.endpoint()
    assert (endpoint.account, endpoint.host, endpoint.port) == (address_bytes(SIGNER.address), "192.0.2.7", 4001)


def test_nobody_announces_for_another_account() -> None:
    with pytest.raises(InvalidInput):
        announcement().sign(new_signer())


def test_a_forged_announcement_is_refused() -> None:
    # Signed properly, but by someone who is not the account in it.
    honest, attacker = announcement().sign(SIGNER), new_signer()
    elsewhere = announcement(attacker, host="203.0.113.9").sign(attacker)
    for forged in (
        SignedAnnouncement(honest.announcement, honest.body, elsewhere.signature),
        SignedAnnouncement(honest.announcement, honest.body.replace(b"192.0.2.7", b"192.0.2.8"), honest.signature),
    ):
        with pytest.raises(InvalidSignature):
            SignedAnnouncement.decode(forged.encode())


@given(st.binary(max_size=400))
def test_random_bytes_are_no_announcement(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        SignedAnnouncement.decode(raw)
    assert not VALIDATOR.validate(DHTRecord(raw[:20], raw[20:40], raw, 1.0))


@given(st.data())
def test_a_changed_announcement_never_verifies(data: st.DataObject) -> None:
    raw = bytearray(announcement().sign(SIGNER).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidInput):
        SignedAnnouncement.decode(bytes(raw))


def test_a_record_over_2_kib_is_not_read() -> None:
    longest = announcement(network="n" * 64, peer_id="p" * 128, host="h" * 255, wire_dtypes=("bfloat16",) * 8)
    assert len(longest.sign(SIGNER).encode()) < MAX_RECORD_BYTES
    with pytest.raises(MalformedMessage):
        SignedAnnouncement.decode(announcement().sign(SIGNER).encode() + bytes(MAX_RECORD_BYTES))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"expires_at": NOW},
        {"expires_at": NOW + MAX_TTL_MS + 1},
        {"price_per_token_block": -1},
        {"price_per_token_block": 2**97},
        {"wire_dtypes": ()},
        {"wire_dtypes": ("float64",)},
    ],
)
def test_values_no_peer_accepts_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        announcement(**changes)


@pytest.mark.parametrize(
    "changes", [{"port": 0}, {"port": 65536}, {"host": ""}, {"host": "h" * 256}, {"throughput": -1}]
)
def test_values_no_peer_accepts_cannot_be_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        announcement(**changes).sign(SIGNER)


def test_freshness_allows_some_skew_but_no_expired_record() -> None:
    signed = announcement().sign(SIGNER)
    assert signed.fresh(NOW)
    assert signed.fresh(NOW - MAX_SKEW_MS)
    assert not signed.fresh(NOW - MAX_SKEW_MS - 1)
    assert not signed.fresh(NOW + 60_000)


def test_the_dht_takes_a_good_record_under_every_key_of_its_span() -> None:
    signed = announcement().sign(SIGNER)
    shard = shard_of(SIGNER.address)
    names = key_names("devnet", MODEL, Span(3, 20), [shard])
    assert [name.rsplit("/", 2)[1:] for name in names] == [["0", str(shard)], ["1", str(shard)]]
    assert all(VALIDATOR.validate(record(signed, key=name)) for name in names)
    others = set(key_names("devnet", MODEL, Span(3, 20))) - set(names)
    assert len(others) == 2 * (SHARDS - 1)
    assert not any(VALIDATOR.validate(record(signed, key=name)) for name in others)


def test_a_span_has_a_key_for_every_bucket_it_touches() -> None:
    assert len(key_names("devnet", MODEL, Span(0, 16), [0])) == 1
    assert len(key_names("devnet", MODEL, Span(15, 17), [0])) == 2
    assert len(key_names("devnet", MODEL, Span(0, 4096), [0])) == 256
    assert len(set(key_names("devnet", MODEL, Span(15, 17)))) == 2 * SHARDS


def test_accounts_spread_evenly_over_the_shards_and_no_key_of_a_large_swarm_is_full() -> None:
    counts = Counter(shard_of(new_signer().address) for _ in range(800))
    assert set(counts) == set(range(SHARDS))
    assert max(counts.values()) < 1.5 * 800 / SHARDS
    # Ten thousand nodes of eight blocks each, over 126 blocks.
    per_key = 10_000 * (1 + 7 / BLOCKS_PER_KEY) / (126 / BLOCKS_PER_KEY) / SHARDS
    assert 1.5 * per_key < MAX_RECORDS


def test_a_record_that_many_peers_give_is_verified_once() -> None:
    signed = announcement(port=1234).sign(SIGNER)
    before = opened.cache_info()
    for name in key_names("devnet", MODEL, signed.announcement.span, [shard_of(SIGNER.address)]):
        for _peer in range(5):
            assert VALIDATOR.validate(record(signed, key=name))
    after = opened.cache_info()
    assert after.misses == before.misses + 1
    assert after.hits > before.hits


def test_the_dht_refuses_what_is_not_in_its_place() -> None:
    signed = announcement().sign(SIGNER)
    other = new_signer()
    bad = [
        record(signed, key=key_names("devnet", MODEL, Span(40, 41), [shard_of(SIGNER.address)])[0]),
        record(signed, key=key_names("devnet", ModelRoot(b"n" * 32), Span(3, 20), [shard_of(SIGNER.address)])[0]),
        record(signed, subkey=address_bytes(other.address)),
        record(signed, subkey="text"),
        record(signed, subkey=(1, 2)),
        record(signed, expires=expiration(NOW + 61_000)),
        record(signed, expires=float("inf")),
        record(signed, expires=float("nan")),
        record(announcement(network="mainnet").sign(SIGNER)),
        record(announcement(issued_at=NOW + 60_000, expires_at=NOW + 60_000 + MAX_TTL_MS).sign(SIGNER)),
        record(b"junk"),
        record(bytes(100_000)),
        DHTRecord(
            record(signed).key, MSGPackSerializer.dumps(None), record(signed).value, record(signed).expiration_time
        ),
        DHTRecord(record(signed).key, b"", record(signed).value, record(signed).expiration_time),
        DHTRecord(record(signed).key, record(signed).subkey, signed.encode(), record(signed).expiration_time),
    ]
    assert not any(VALIDATOR.validate(each) for each in bad)
    assert VALIDATOR.validate(record(signed))


def test_an_expired_record_does_not_take_its_neighbours_with_it() -> None:
    # hivemind drops a whole dictionary for one refused record, and storage drops expired ones anyway.
    late = AnnouncementValidator("devnet", clock=lambda: NOW + 60_001)
    assert late.validate(record(announcement().sign(SIGNER)))


def test_an_older_record_cannot_replace_or_shorten_a_newer_one() -> None:
    storage, soon = BoundedStorage(), time.time() + 0.3
    assert storage.store_subkey(DHTID(1), b"a", b"new", soon + 60)
    assert not storage.store_subkey(DHTID(1), b"a", b"old", soon)
    time.sleep(0.35)
    assert dict(storage.get(DHTID(1)).value.items())[b"a"].value == b"new"


def test_storage_is_bounded_in_records_and_keys() -> None:
    storage, later = BoundedStorage(), time.time() + 60
    for i in range(dht.MAX_RECORDS + 20):
        storage.store_subkey(DHTID(1), i.to_bytes(20, "big"), b"v", later + i)
    assert len(storage.get(DHTID(1)).value) <= dht.MAX_RECORDS
    for i in range(dht.MAX_KEYS + 20):
        storage.store_subkey(DHTID(i + 2), b"a", b"v", later + i)
    assert len(storage) <= dht.MAX_KEYS


def test_reading_storage_gives_a_copy() -> None:
    storage, later = BoundedStorage(), time.time() + 60
    storage.store_subkey(DHTID(1), b"a", b"v", later)
    storage.get(DHTID(1)).value.store(b"b", b"v", later)
    assert len(storage.get(DHTID(1)).value) == 1


@pytest.mark.parametrize("maxsize", ["many", -1, 1, float("nan"), None])
def test_what_peers_wrap_around_records_is_not_believed(maxsize: Any) -> None:
    later = time.time() + 60
    hostile = DictionaryDHTValue(4)
    hostile.store(b"a", b"v", later)
    hostile.maxsize, hostile.latest_expiration_time = maxsize, float("inf")
    rebuilt = dht._rebuilt(ValueWithExpiration(hostile, float("inf")))
    assert rebuilt is not None
    assert rebuilt.expiration_time == later
    assert dict(rebuilt.value.items()) == {b"a": ValueWithExpiration(b"v", later)}
    assert rebuilt.value.maxsize == dht.MAX_RECORDS


def test_an_endless_or_empty_answer_is_none() -> None:
    endless = DictionaryDHTValue(4)
    endless.store(b"a", b"v", float("inf"))
    assert dht._rebuilt(ValueWithExpiration(endless, float("inf"))) is None
    assert dht._rebuilt(ValueWithExpiration(b"plain", time.time() + 60)) is None
    assert dht._rebuilt(None) is None


def test_a_lookup_believes_the_newest_of_each_account() -> None:
    other = new_signer()
    old = announcement(host="192.0.2.1").sign(SIGNER)
    new = announcement(host="192.0.2.2", issued_at=NOW + 1, expires_at=NOW + 60_001, span=Span(0, 3)).sign(SIGNER)
    beside = announcement(other, span=Span(9, 30)).sign(other)
    for order in ([old, new, beside], [new, beside, old, None]):
        found = newest(order, model_root=MODEL, network="devnet", now=NOW)
        assert found == [new.announcement, beside.announcement]


def test_a_lookup_leaves_out_what_is_gone_expired_or_foreign() -> None:
    gone = announcement(state=NodeState.OFFLINE, issued_at=NOW + 1, expires_at=NOW + 60_001).sign(SIGNER)
    standing = announcement().sign(SIGNER)
    ask = {"model_root": MODEL, "network": "devnet"}
    assert newest([standing, gone], now=NOW, **ask) == []
    assert newest([standing], now=NOW + 60_000, **ask) == []
    assert newest([standing], now=NOW, network="mainnet", model_root=MODEL) == []
    assert newest([standing], now=NOW, network="devnet", model_root=ModelRoot(bytes(32))) == []
    assert newest([standing], now=NOW, **ask) == [standing.announcement]


def test_the_signed_bytes_are_what_counts_not_how_we_would_write_them() -> None:
    """The same values in another encoding are another record, and need their own signature."""
    signed = announcement().sign(SIGNER)
    respelled = msgspec.msgpack.encode([*msgspec.msgpack.decode(signed.body)[:-1], float(NOW + 60_000)])
    with pytest.raises(InvalidInput):
        SignedAnnouncement.decode(SignedAnnouncement(signed.announcement, respelled, signed.signature).encode())
