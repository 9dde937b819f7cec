"""Spans, amounts, ids and errors: what they accept, refuse and say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol import errors
from corolla_core.protocol.errors import CorollaError, InvalidInput, InvalidSpan, PeerMisbehaved, VoucherTooSmall
from corolla_core.protocol.ids import address, hash32, session_id
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.span import Span, uncovered
from corolla_core.protocol.units import MAX_UINT128, nectar_from_text, nectar_to_text

spans = st.tuples(st.integers(0, 200), st.integers(1, 100)).map(lambda t: Span(t[0], t[0] + t[1]))


def test_a_span_is_half_open() -> None:
    assert list(Span(0, 16).blocks()) == list(range(16))
    assert 15 in Span(0, 16)
    assert 16 not in Span(0, 16)


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 3), (-1, 2), (0, 5000), (True, 2), (0.0, 2)])
def test_an_impossible_span_is_refused(start: int, end: int) -> None:
    with pytest.raises(InvalidSpan):
        Span(start, end)


@given(spans)
def test_a_span_survives_its_text(span: Span) -> None:
    assert Span.parse(str(span)) == span


@pytest.mark.parametrize("text", ["", "3", "3:", ":3", "a:b", "3:2", "1:2:3", "-1:2", "٣:٤٥٦٧٨"])
def test_text_that_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpan):
        Span.parse(text)


@given(spans, spans)
def test_spans_overlap_exactly_when_they_share_a_block(a: Span, b: Span) -> None:
    shared = set(a.blocks()) & set(b.blocks())
    assert a.overlaps(b) == bool(shared)
    assert (b in a) == (set(b.blocks()) <= set(a.blocks()))


@given(st.lists(spans, max_size=6))
def test_uncovered_blocks_are_those_in_no_span(served: list[Span]) -> None:
    assert uncovered(64, served) == [b for b in range(64) if not any(b in s for s in served)]


@given(st.integers(0, MAX_UINT128))
def test_an_amount_survives_its_text_to_the_last_base_unit(amount: int) -> None:
    assert nectar_from_text(nectar_to_text(amount)) == amount


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e999999", "0.0000000000000000001", "1,5", "0x10", "9" * 61])
def test_text_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        nectar_from_text(text)


@given(st.integers(0, 2**96), spans, st.lists(st.integers(0, 500), max_size=8))
def test_the_cost_of_steps_adds_up_to_the_cost_of_the_whole(per: int, span: Span, steps: list[int]) -> None:
    price = Price(per)
    assert sum(price.of(span, n) for n in steps) == price.of(span, sum(steps))


def test_ids_check_their_size() -> None:
    assert address(bytes(20)) == "0x" + "0" * 40
    assert hash32("0x" + "ab" * 32) == b"\xab" * 32
    for bad in (b"", bytes(19), "0x12", "zz" * 20, None, 7):
        with pytest.raises(InvalidInput):
            address(bad)
        with pytest.raises(InvalidInput):
            session_id(bad)


def test_an_error_carries_its_data_across_the_wire() -> None:
    sent = VoucherTooSmall("pay first", owed=2**120, offered=3)
    received = errors.from_wire(errors.to_wire(sent))
    assert type(received) is VoucherTooSmall
    assert (received.owed, received.offered, received.message) == (2**120, 3, "pay first")


def test_an_error_refuses_data_it_has_no_name_for() -> None:
    with pytest.raises(TypeError):
        VoucherTooSmall("x", colour=1)


wire_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(wire_values)
def test_anything_a_peer_sends_as_an_error_becomes_a_typed_error(raw: object) -> None:
    assert isinstance(errors.from_wire(raw), PeerMisbehaved)


@given(st.sampled_from(["VoucherTooSmall", "OutOfCapacity", "NoRoute", "CorollaError"]), wire_values, wire_values)
def test_a_known_code_with_any_data_becomes_a_typed_error(code: str, message: object, data: object) -> None:
    error = errors.from_wire({"code": code, "message": message, "data": data})
    assert isinstance(error, CorollaError)
    assert str(error)
    errors.to_wire(error)
