"""What signatures alone convict a node of is found wherever its receipts are shown; honest nodes sign no such thing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from corolla_core.protocol.errors import OutOfCapacity
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot, SessionId
from corolla_core.protocol.merkle import merkle_root
from corolla_core.protocol.provable import (
    BrokenLink,
    FalseWeights,
    Publication,
    broken_links,
    claims_false_weights,
    kind,
    unmet,
)
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype
from corolla_core.protocol.receipt_chain import ChainKey, Fork, Linked, link
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import UnixTime
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_validator.fault_finder import FaultFinder

UPPER, LOWER = Signer(sha256(b"upper").digest()), Signer(sha256(b"lower").digest())
BLOCKS = tuple(Hash32(sha256(b"block %d" % n).digest()) for n in range(4))
MODEL = Publication(ModelRoot(b"m" * 32), BLOCKS, frozenset({NumericClass.FP32}), 1, UnixTime(100))
SESSION = SessionId(b"s" * 16)


def root(*what: object) -> Hash32:
    return Hash32(sha256(repr(what).encode()).digest())


def receipt(span: Span, start: int = 0, count: int = 8, previous: Hash32 = ZERO_HASH, **changes: Any) -> Receipt:
    """What an honest node signs over nothing: the rows between blocks are named by block and position."""
    made = Receipt(
        chain_id=1337,
        epoch=0,
        model_root=MODEL.model_root,
        span=span,
        weight_root=merkle_root(BLOCKS[span.start : span.end]),
        numeric_class=NumericClass.FP32,
        session_id=SESSION,
        client_nonce=bytes([span.start]) * 32,
        pos_start=start,
        n_pos=count,
        wire=WireDtype.FLOAT32,
        batch=1,
        order_root=ZERO_HASH,
        in_root=root(span.start, start),
        out_root=root(span.end, start),
        upstream_receipt_hash=ZERO_HASH,
        prev_receipt_hash=previous,
        t_in=200_000 + start,
        t_out=200_001 + start,
    )
    return replace(made, **changes)


A, B = Span(0, 2), Span(2, 4)
ABOVE = receipt(A).sign(UPPER)
OVER = receipt(B, upstream_receipt_hash=ABOVE.receipt.hash())
HONEST, MISLINKED = OVER.sign(LOWER), replace(OVER, in_root=root("other")).sign(LOWER)


def test_a_receipt_over_anothers_rows_is_a_broken_link_and_over_its_rows_is_none() -> None:
    assert broken_links([ABOVE, HONEST]) == []
    assert broken_links([MISLINKED, ABOVE, ABOVE]) == [BrokenLink(MISLINKED, ABOVE)]
    assert broken_links([MISLINKED]) == []  # nobody knows yet what it names
    assert BrokenLink(MISLINKED, ABOVE).node == LOWER.address


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 1},
        {"session_id": SessionId(b"x" * 16)},
        {"pos_start": 1},
        {"n_pos": 7},
        {"span": Span(0, 1)},
    ],
)
def test_a_receipt_of_something_else_breaks_no_link(change: dict[str, Any]) -> None:
    """The contract takes it for nothing either."""
    above = replace(receipt(A), **change).sign(UPPER)
    lower = replace(MISLINKED.receipt, upstream_receipt_hash=above.receipt.hash()).sign(LOWER)
    assert broken_links([above, lower]) == []


def test_what_is_named_and_not_there_is_unmet_once() -> None:
    both = [HONEST, receipt(B, 8, upstream_receipt_hash=ABOVE.receipt.hash()).sign(LOWER), receipt(B, 16).sign(LOWER)]
    assert unmet(both, both) == [ABOVE.receipt.hash()]
    assert unmet(both, [ABOVE]) == []


@pytest.mark.parametrize(
    ("change", "false"),
    [
        ({}, False),
        ({"weight_root": root("others")}, True),
        ({"weight_root": BLOCKS[0]}, True),
        ({"span": Span(0, 3)}, True),
        ({"span": Span(2, 9)}, True),
        ({"numeric_class": NumericClass.NF4}, True),
        ({"numeric_class": NumericClass.NF4, "t_in": 99_999}, False),  # begun before the model was published
        ({"model_root": ModelRoot(b"o" * 32), "weight_root": root("others")}, False),  # of another model
    ],
)
def test_weights_blocks_and_classes_a_model_does_not_have_are_false(change: dict[str, Any], false: bool) -> None:
    assert claims_false_weights(replace(receipt(A), **change), MODEL) is false


class Shown:
    """What nodes hold and show to who names it; and what was published."""

    def __init__(self) -> None:
        self.holds: dict[Address, list[SignedReceipt]] = {}
        self.asked = 0
        self.busy = False
        self.models: list[Publication | None] = [MODEL]

    async def named(self, node: Any, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        self.asked += 1
        if self.busy:
            raise OutOfCapacity("busy", needed=1, free=0)
        return self.holds.get(node.account, [])

    async def now(self, *, within: float = 60.0) -> Publication | None:
        """The first one until somebody insists."""
        return self.models[-1 if within == 0 else 0]


class Seen:
    """A validator's books, and what is found when a node's receipts are read."""

    def __init__(self, store: Store) -> None:
        self.shown = Shown()
        self.books = ValidatorStore(store)
        self.finder = FaultFinder(self.shown, store, self.shown)  # type: ignore[arg-type]

    async def read(self, signed: Sequence[SignedReceipt], signer: Signer) -> list[Any]:
        for one in signed:
            self.books.record_receipt(one)
        online: Any = {who.address: _Node(who.address) for who in (UPPER, LOWER)}
        faults = []
        for linked in link(self.books.receipts(SESSION, signer=signer.address)):
            faults += await self.finder.look(linked, online)
        return faults


class _Node:
    def __init__(self, account: Address) -> None:
        self.account = account


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Seen]:
    async with Store.open(tmp_path / "books.db") as store:
        yield Seen(store)


@pytest.mark.anyio
async def test_honest_neighbours_are_not_accused_in_whatever_order_they_are_read(seen: Seen) -> None:
    seen.shown.holds[LOWER.address] = [ABOVE]
    assert await seen.read([HONEST], LOWER) == []
    assert await seen.read([ABOVE], UPPER) == []
    assert await seen.read([receipt(B, 8, 4, HONEST.receipt.hash()).sign(LOWER)], LOWER) == []


@pytest.mark.anyio
@pytest.mark.parametrize("upper_first", [True, False])
async def test_a_broken_link_is_found_once_whoever_is_read_first(seen: Seen, upper_first: bool) -> None:
    reads = [([ABOVE], UPPER), ([MISLINKED], LOWER)]
    found = [fault for read in (reads if upper_first else reads[::-1]) for fault in await seen.read(*read)]
    assert found == [BrokenLink(MISLINKED, ABOVE)]
    again = receipt(B, 8, 8, MISLINKED.receipt.hash(), upstream_receipt_hash=root("nothing")).sign(LOWER)
    assert await seen.read([again], LOWER) == []


@pytest.mark.anyio
async def test_what_a_node_showed_its_neighbour_and_nobody_else_is_asked_of_the_neighbour(seen: Seen) -> None:
    """Two faces: validators are shown another receipt than the next node got."""
    other = receipt(A, t_out=999_999).sign(UPPER)
    assert await seen.read([other], UPPER) == []
    seen.shown.holds[LOWER.address] = [ABOVE]
    (fork,) = await seen.read([HONEST], LOWER)
    assert isinstance(fork, Fork)
    assert (fork.node, set(fork.receipts)) == (UPPER.address, {ABOVE, other})
    assert seen.shown.asked == 1


@pytest.mark.anyio
async def test_receipts_nobody_asked_for_are_not_taken_and_a_busy_node_is_asked_again(seen: Seen) -> None:
    stranger = receipt(A, client_nonce=b"z" * 32).sign(LOWER)
    seen.shown.holds[LOWER.address] = [stranger]
    seen.shown.busy = True
    await seen.read([HONEST], LOWER)
    seen.shown.busy = False
    await seen.read([HONEST], LOWER)
    await seen.read([HONEST], LOWER)
    assert seen.shown.asked == 2
    assert stranger not in seen.books.receipts(SESSION)


@pytest.mark.anyio
async def test_false_weights_are_found_once_a_chain_and_leave_nothing_to_audit(seen: Seen) -> None:
    false = receipt(B, weight_root=root("others")).sign(LOWER)
    assert await seen.read([false], LOWER) == [FalseWeights(false)]
    assert await seen.read([false], LOWER) == []
    assert seen.finder.unfit(ChainKey(LOWER.address, SESSION, false.receipt.client_nonce))
    assert not seen.finder.unfit(ChainKey(UPPER.address, SESSION, false.receipt.client_nonce))


@pytest.mark.anyio
async def test_a_class_published_a_moment_ago_accuses_nobody(seen: Seen) -> None:
    signed = receipt(B, numeric_class=NumericClass.BF16).sign(LOWER)
    seen.shown.models.append(replace(MODEL, classes=MODEL.classes | {NumericClass.BF16}))
    assert await seen.read([signed], LOWER) == []
    seen.shown.models.append(None)  # what is not published accuses nobody either
    later = receipt(B, 8, 8, signed.receipt.hash(), weight_root=root("others")).sign(LOWER)
    assert await seen.read([later], LOWER) == []


def test_each_fault_has_a_name() -> None:
    faults = (Fork(ABOVE, ABOVE), BrokenLink(MISLINKED, ABOVE), FalseWeights(HONEST))
    assert [kind(fault) for fault in faults] == ["fork", "broken link", "false weights"]


def test_a_chain_without_receipts_names_nothing() -> None:
    assert unmet(Linked(ChainKey(LOWER.address, SESSION, b"n" * 32), ()).chain, []) == []
