"""A transcript that exists is true to its signatures, and a chain of receipts shows every fork in it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol.errors import CorollaError, InvalidProof, MalformedMessage
from corolla_core.protocol.ids import ZERO_HASH, Hash32, ModelRoot, SessionId
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype, rows_root
from corolla_core.protocol.receipt_chain import link
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.transcript import Entry, Transcript

NODE, OTHER = Signer(b"\x01" * 32), Signer(b"\x02" * 32)
SESSION = SessionId(b"s" * 16)
ROW = 8


def rows(seed: int, count: int) -> bytes:
    return Random(seed).randbytes(count * ROW)


def entry(
    previous: Hash32, pos: int, count: int, *, seed: int, signer: Signer = NODE, nonce: bytes = b"n" * 32
) -> Entry:
    inputs, outputs = rows(seed, count), rows(seed + 1, count)

    def root(data: bytes) -> Hash32:
        return rows_root(SESSION, pos, [data[at : at + ROW] for at in range(0, len(data), ROW)])

    receipt = Receipt(
        chain_id=1337,
        epoch=0,
        model_root=ModelRoot(b"m" * 32),
        span=Span(0, 4),
        weight_root=Hash32(b"w" * 32),
        numeric_class=NumericClass.FP32,
        session_id=SESSION,
        client_nonce=nonce,
        pos_start=pos,
        n_pos=count,
        wire=WireDtype.FLOAT32,
        batch=1,
        order_root=ZERO_HASH,
        in_root=root(inputs),
        out_root=root(outputs),
        upstream_receipt_hash=ZERO_HASH,
        prev_receipt_hash=previous,
        t_in=1,
        t_out=2,
    )
    return Entry(receipt.sign(signer), inputs, outputs)


@st.composite
def sessions(draw: st.DrawFn) -> tuple[Entry, ...]:
    """Chunks that continue the session, or roll it back first."""
    made: list[Entry] = []
    end = 0
    for number in range(draw(st.integers(1, 6))):
        pos = draw(st.integers(0, end)) if number else 0
        count = draw(st.integers(1, 5))
        made.append(entry(made[-1].receipt.hash() if made else ZERO_HASH, pos, count, seed=draw(st.integers(0, 999))))
        end = pos + count
    return tuple(made)


@given(sessions())
def test_a_true_session_is_a_transcript_and_survives_its_encoding(entries: tuple[Entry, ...]) -> None:
    transcript = Transcript(entries)
    again = Transcript.decode(transcript.encode())
    assert (again.entries, again.hash()) == (transcript.entries, transcript.hash())
    assert transcript.node == NODE.address


@given(sessions())
def test_what_is_visible_is_what_the_last_receipts_left(entries: tuple[Entry, ...]) -> None:
    held: list[tuple[bytes, bytes]] = []
    for one in entries:
        del held[one.receipt.pos_start :]
        for row in range(one.receipt.n_pos):
            held.append((one.inputs[row * ROW :][:ROW], one.outputs[row * ROW :][:ROW]))
    transcript = Transcript(entries)
    assert [bytes(row) for row in transcript.input_rows()] == [inputs for inputs, _ in held]
    assert [bytes(row) for row in transcript.output_rows()] == [outputs for _, outputs in held]


@given(sessions(), st.data())
def test_one_changed_byte_anywhere_is_no_transcript(entries: tuple[Entry, ...], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    one = entries[index]
    which = data.draw(st.sampled_from(["inputs", "outputs"]))
    rows_ = bytearray(getattr(one, which))
    rows_[data.draw(st.integers(0, len(rows_) - 1))] ^= data.draw(st.integers(1, 255))
    forged = replace(one, **{which: bytes(rows_)})
    with pytest.raises(InvalidProof):
        Transcript((*entries[:index], forged, *entries[index + 1 :]))


@given(sessions(), st.data())
def test_a_missing_receipt_is_noticed(entries: tuple[Entry, ...], data: st.DataObject) -> None:
    if len(entries) < 2:
        return
    index = data.draw(st.integers(0, len(entries) - 2))
    with pytest.raises(InvalidProof):
        Transcript((*entries[:index], *entries[index + 1 :]))


def test_several_signers_or_sessions_are_no_transcript() -> None:
    first = entry(ZERO_HASH, 0, 2, seed=1)
    with pytest.raises(InvalidProof, match="several accounts"):
        Transcript((first, entry(first.receipt.hash(), 2, 1, seed=2, signer=OTHER)))
    with pytest.raises(InvalidProof, match="several sessions"):
        Transcript((first, entry(first.receipt.hash(), 2, 1, seed=2, nonce=b"o" * 32)))
    with pytest.raises(InvalidProof, match="are missing"):
        Transcript((first, entry(first.receipt.hash(), 3, 1, seed=2)))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_evidence_are_a_typed_error(data: bytes) -> None:
    with pytest.raises(CorollaError):
        Transcript.decode(data)


def test_deep_nesting_is_a_typed_error() -> None:
    with pytest.raises(MalformedMessage):
        Transcript.decode(b"\x91" * 100_000)


@given(sessions(), st.randoms(use_true_random=False))
def test_a_chain_is_put_in_order_however_it_comes(entries: tuple[Entry, ...], random: Random) -> None:
    signed = [one.signed for one in entries] * 2
    random.shuffle(signed)
    (linked,) = link(signed)
    assert [one.receipt for one in linked.chain] == [one.receipt for one in entries]
    assert (linked.forks, linked.loose, linked.head) == ((), (), entries[-1].receipt.hash())


@given(sessions(), st.data())
def test_every_fork_is_shown_and_ends_the_chain(entries: tuple[Entry, ...], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    honest = entries[index].signed
    second = replace(honest.receipt, t_out=honest.receipt.t_out + 1).sign(NODE)
    (linked,) = link([*(one.signed for one in entries), second])
    (fork,) = linked.forks
    assert {fork.first.receipt.hash(), fork.second.receipt.hash()} == {honest.receipt.hash(), second.receipt.hash()}
    assert fork.node == NODE.address
    assert len(linked.chain) == index


@given(sessions(), st.data())
def test_what_a_gap_cuts_off_is_loose(entries: tuple[Entry, ...], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(entries) - 1))
    kept: list[SignedReceipt] = [one.signed for number, one in enumerate(entries) if number != index]
    found = link(kept)
    if not kept:
        assert found == []
        return
    assert [one.receipt for one in found[0].chain] == [one.receipt for one in entries[:index]]
    assert len(found[0].loose) == len(entries) - index - 1
