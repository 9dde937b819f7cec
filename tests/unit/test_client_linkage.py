"""Neighbours' receipts are compared as they come, in whatever order; no honest node is lost for it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from books import receipt as any_receipt
from hypothesis import given
from hypothesis import strategies as st

from corolla import blame
from corolla.blame import Ignore, Report
from corolla.linkage import Linkage
from corolla_core.protocol.errors import LinkBroken, PeerMisbehaved
from corolla_core.protocol.ids import Hash32, address
from corolla_core.protocol.receipt import Receipt
from corolla_core.protocol.span import Span

A, B, C = (address(bytes([n]) * 20) for n in (1, 2, 3))
CHAIN = [A, B, C]
SPANS = {A: Span(0, 2), B: Span(2, 4), C: Span(4, 6)}


def root(*what: object) -> Hash32:
    return Hash32(sha256(repr(what).encode()).digest())


def made(account: Any, start: int, count: int = 8, **changes: Any) -> Receipt:
    """What an honest node signs, over nothing."""
    place = CHAIN.index(account)
    values = {
        "span": SPANS[account],
        "pos_start": start,
        "n_pos": count,
        "in_root": root(place, start),
        "out_root": root(place + 1, start),
    }
    return replace(any_receipt().receipt, **(values | changes))


def over(upper: Receipt, lower: Receipt) -> Receipt:
    return replace(lower, upstream_receipt_hash=upper.hash())


@given(st.data())
def test_honest_receipts_are_fine_in_whatever_order_the_nodes_send_them(data: st.DataObject) -> None:
    linkage = Linkage()
    queues: dict[Any, list[Receipt]] = {account: [] for account in CHAIN}
    for start in range(0, 40, 8):
        above = None
        for account in CHAIN:
            mine = made(account, start)
            if above is not None and data.draw(st.booleans()):
                mine = over(above, mine)
            queues[account].append(mine)
            above = mine
    while any(queues.values()):
        account = data.draw(st.sampled_from([a for a in CHAIN if queues[a]]))
        assert linkage.check(account, queues[account].pop(0), CHAIN) is None


@pytest.mark.parametrize("upper_first", [True, False])
def test_other_rows_than_the_next_node_got_lose_the_node_before_once(upper_first: bool) -> None:
    linkage = Linkage()
    pair = [(A, made(A, 0)), (B, made(B, 0, in_root=root("other")))]
    first, second = pair if upper_first else pair[::-1]
    assert linkage.check(*first, CHAIN) is None
    lost = linkage.check(*second, CHAIN)
    assert lost is not None
    assert lost.account == A
    assert isinstance(lost.error, LinkBroken)
    assert lost.error.receipt == pair[0][1].hash()
    # The same again of whoever took its place: now it is the one who says so.
    linkage.check(C, made(A, 8), [C, B])
    again = linkage.check(B, made(B, 8, in_root=root("other")), [C, B])
    assert again is not None
    assert again.account == B
    assert isinstance(again.error, PeerMisbehaved)


def test_who_signs_over_other_rows_than_its_own_has_proven_it_itself() -> None:
    linkage, upper = Linkage(), made(A, 0)
    linkage.check(A, upper, CHAIN)
    lost = linkage.check(B, over(upper, made(B, 0, in_root=root("other"))), CHAIN)
    assert lost is not None
    assert (lost.account, type(lost.error)) == (B, PeerMisbehaved)


@pytest.mark.parametrize("upper_first", [True, False])
def test_a_receipt_the_node_before_never_sent_is_found_out(upper_first: bool) -> None:
    linkage = Linkage()
    named = replace(made(B, 0), upstream_receipt_hash=root("nothing"))
    steps = [(A, made(A, 0)), (B, named)] if upper_first else [(B, named), (A, made(A, 0))]
    found = [linkage.check(account, receipt, CHAIN) for account, receipt in steps]
    assert found[0] is None
    assert found[1] is not None
    assert found[1].account == A  # which may have sent each of its neighbours another one
    named = replace(made(B, 8), upstream_receipt_hash=root("nothing"))
    linkage.check(C, made(C, 8), [C, B])
    again = linkage.check(B, replace(named, span=Span(6, 8)), [C, B])
    assert again is not None
    assert again.account == B  # which says so of everyone


def test_a_receipt_the_node_before_can_send_no_more_is_found_out() -> None:
    linkage = Linkage()
    assert linkage.check(B, replace(made(B, 0, 4), upstream_receipt_hash=root("nothing")), CHAIN) is None
    lost = linkage.check(A, made(A, 8), CHAIN)
    assert lost is not None
    assert lost.account == A
    assert isinstance(lost.error, LinkBroken)
    assert lost.error.receipt == root("nothing")


def test_the_first_node_has_no_node_before_it() -> None:
    lost = Linkage().check(A, replace(made(A, 0), upstream_receipt_hash=root("x")), CHAIN)
    assert lost is not None
    assert lost.account == A


def test_rows_that_were_dropped_or_computed_anew_accuse_nobody() -> None:
    linkage = Linkage()
    linkage.void(16)
    linkage.check(A, made(A, 8), CHAIN)
    assert linkage.check(B, made(B, 8, in_root=root("before the crop")), CHAIN) is None
    linkage.check(A, made(A, 16), CHAIN)
    assert linkage.check(B, made(B, 16, in_root=root("other")), CHAIN) is not None


def test_a_node_that_only_says_so_gets_nobody_replaced() -> None:
    claim = LinkBroken("other rows", peer=A, receipt=root("x"))
    assert blame.judge(Report(B, claim), CHAIN) == Ignore()
