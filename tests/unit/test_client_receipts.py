"""A node's receipts form one chain, say what was agreed, and fit the rows the client itself saw."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from corolla.receipts import CLOCKS_DIFFER, Orders, ReceiptChain, Terms, Witness
from corolla_core.protocol.errors import PeerMisbehaved
from corolla_core.protocol.ids import ZERO_HASH, Hash32, ModelRoot, SessionId
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype, rows_root
from corolla_core.protocol.reordering import Reordering, order_root
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span

NODE = Signer(sha256(b"node").digest())
SESSION = SessionId(b"s" * 16)
ROW = 8
TERMS = Terms(
    NODE.address, 1337, ModelRoot(b"m" * 32), Span(2, 4), Hash32(b"w" * 32), SESSION, b"n" * 32, WireDtype.FLOAT32, 1
)


NOW = 1_800_000_000.0


def chain_of(terms: Terms = TERMS, **changes: Any) -> ReceiptChain:
    return ReceiptChain(terms, **({"orders": Orders(), "clock": lambda: NOW, "opened": NOW - 500} | changes))


def rows(start: int, count: int, salt: str = "") -> list[bytes]:
    return [sha256(f"{salt}{p}".encode()).digest()[:ROW] for p in range(start, start + count)]


def receipt(start: int, count: int, previous: Hash32 = ZERO_HASH, **changes: Any) -> Receipt:
    made = Receipt(
        chain_id=1337,
        epoch=0,
        model_root=TERMS.model_root,
        span=TERMS.span,
        weight_root=TERMS.weight_root,
        numeric_class=NumericClass.FP32,
        session_id=SESSION,
        client_nonce=TERMS.client_nonce,
        pos_start=start,
        n_pos=count,
        wire=WireDtype.FLOAT32,
        batch=1,
        order_root=ZERO_HASH,
        in_root=rows_root(SESSION, start, rows(start, count, "in")),
        out_root=rows_root(SESSION, start, rows(start, count, "out")),
        upstream_receipt_hash=ZERO_HASH,
        prev_receipt_hash=previous,
        t_in=int(NOW * 1000) - 400_000,
        t_out=int(NOW * 1000) - 10,
    )
    return replace(made, **changes)


def wire(made: Receipt, signer: Signer = NODE) -> SignedReceipt:
    return made.sign(signer)


def witness(count: int, salt: str) -> Witness:
    seen = Witness(SESSION)
    seen.saw(0, b"".join(rows(0, count, salt)), batch=1, tokens=count)
    return seen


def test_receipts_that_follow_each_other_are_kept() -> None:
    chain = chain_of(sent=witness(12, "in"), received=witness(12, "out"))
    first = receipt(0, 8)
    chain.add(wire(first))
    chain.add(wire(receipt(8, 4, first.hash())))
    assert [signed.receipt.n_pos for signed in chain.take()] == [8, 4]
    assert chain.take() == []


def test_what_convicts_a_node_is_refused_and_kept() -> None:
    chain, first = chain_of(), receipt(0, 8)
    chain.add(wire(first))
    fork = receipt(0, 8, t_out=int(NOW * 1000) - 9)
    with pytest.raises(PeerMisbehaved):
        chain.add(wire(fork))
    false = receipt(8, 4, first.hash(), weight_root=Hash32(b"x" * 32))
    with pytest.raises(PeerMisbehaved):
        chain.add(wire(false))
    with pytest.raises(PeerMisbehaved):
        chain.add(wire(receipt(8, 4, first.hash(), session_id=SessionId(b"x" * 16))))
    assert [signed.receipt for signed in chain.take()] == [first, fork, false]


def test_a_receipt_about_other_rows_than_the_client_sent_or_got_is_refused() -> None:
    other = rows_root(SESSION, 0, rows(0, 8, "forged"))
    for root in ("in_root", "out_root"):
        chain = chain_of(sent=witness(8, "in"), received=witness(8, "out"))
        with pytest.raises(PeerMisbehaved):
            chain.add(wire(receipt(0, 8, **{root: other})))


def test_rows_the_client_never_saw_are_taken_on_trust() -> None:
    chain = chain_of(received=witness(3, "out"))
    chain.add(wire(receipt(0, 8)))
    assert chain.end == 8


def test_after_a_crop_late_receipts_of_the_old_rows_are_no_lies() -> None:
    seen = witness(12, "in")
    seen.crop(8, end=12)
    seen.saw(8, b"".join(rows(8, 6, "new")), batch=1, tokens=6)
    chain = chain_of(sent=seen, end=8, head=ZERO_HASH)
    chain.add(wire(receipt(8, 4)))
    assert seen.root(12, 2) == rows_root(SESSION, 12, rows(12, 2, "new"))


def test_single_positions_say_the_same_as_a_prompt_of_them() -> None:
    seen = Witness(SESSION)
    for position, row in enumerate(rows(0, 200)):
        seen.saw(position, row, batch=1, tokens=1)
    seen.crop(150, end=200)
    for position, row in enumerate(rows(150, 60, "new"), 150):
        seen.saw(position, row, batch=1, tokens=1)
    assert seen.root(40, 110) == rows_root(SESSION, 40, rows(40, 110))
    assert seen.root(200, 10) == rows_root(SESSION, 200, rows(200, 10, "new"))
    assert seen.root(190, 8) is None


def test_rows_of_a_batch_are_joined_position_by_position() -> None:
    seen = Witness(SESSION)
    a, b = rows(0, 2, "a"), rows(0, 2, "b")
    seen.saw(0, b"".join([*a, *b]), batch=2, tokens=2)
    assert seen.root(0, 2) == rows_root(SESSION, 0, [a[0] + b[0], a[1] + b[1]])


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 1},
        {"model_root": ModelRoot(b"x" * 32)},
        {"span": Span(2, 5)},
        {"weight_root": Hash32(b"x" * 32)},
        {"session_id": SessionId(b"x" * 16)},
        {"client_nonce": b"x" * 32},
        {"prev_receipt_hash": Hash32(b"x" * 32)},
        {"pos_start": 1},
        {"wire": WireDtype.BFLOAT16},
        {"batch": 2},
        {"order_root": Hash32(b"x" * 32)},
    ],
)
def test_a_receipt_of_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PeerMisbehaved):
        chain_of().add(wire(receipt(0, 8, **change)))


MS = int(NOW * 1000)
APART = int(CLOCKS_DIFFER * 1000)


@pytest.mark.parametrize(
    ("t_in", "t_out"),
    [
        (MS - APART - 1, MS - APART - 1),
        (MS, MS + APART + 1),
        (0, MS),
        (MS - 500_000 - APART - 1, MS),
        (0, 0),
    ],
)
def test_a_receipt_of_another_time_is_refused(t_in: int, t_out: int) -> None:
    with pytest.raises(PeerMisbehaved):
        chain_of().add(wire(receipt(0, 8, t_in=t_in, t_out=t_out)))


@pytest.mark.parametrize(("t_in", "t_out"), [(MS - APART, MS - APART), (MS, MS + APART), (MS - 500_000 - APART, MS)])
def test_clocks_may_differ_a_little(t_in: int, t_out: int) -> None:
    assert chain_of().add(wire(receipt(0, 8, t_in=t_in, t_out=t_out))).n_pos == 8


def test_a_receipt_commits_to_the_reorderings_that_were_asked_for_and_no_others() -> None:
    orders, two = Orders(), replace(TERMS, batch=2)
    asked = [Reordering(5, (1, 0)), Reordering(6, (1, 1))]
    for one in asked:
        orders.ask(one)

    def added(*, replayed: int = 0, **changes: Any) -> Receipt:
        return chain_of(two, orders=orders, end=8, replayed=replayed).add(wire(receipt(4, 4, batch=2, **changes)))

    added(order_root=order_root(asked))
    for wrong in ([], asked[:1], asked[::-1], [Reordering(5, (0, 1)), asked[1]]):
        with pytest.raises(PeerMisbehaved):
            added(order_root=order_root(wrong))
    added(order_root=order_root(asked[1:]), replayed=6)  # who was given position 5 as it had become reordered nothing
    with pytest.raises(PeerMisbehaved):
        added(order_root=order_root(asked), replayed=6)
    orders.crop(5, end=8)
    added(order_root=order_root(asked[:1]))  # late, and about what is void: nothing is said of it
    orders.ask(Reordering(8, (0, 0)))
    assert orders.root(8, 2, replayed=0) == order_root([Reordering(8, (0, 0))])


def test_a_receipt_signed_by_somebody_else_is_refused() -> None:
    with pytest.raises(PeerMisbehaved):
        chain_of().add(wire(receipt(0, 8), Signer(sha256(b"other").digest())))


def test_a_receipt_that_nobody_signed_is_refused() -> None:
    with pytest.raises(PeerMisbehaved):
        chain_of().add(SignedReceipt(receipt(0, 8), bytes(65)))
