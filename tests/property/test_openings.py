"""An opening proves exactly the rows that were signed for, at their positions, and nothing else passes."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from books import receipt as any_receipt
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol.errors import CorollaError, InvalidInput, InvalidProof
from corolla_core.protocol.opening import Side, branch, check_all, check_row
from corolla_core.protocol.receipt import Receipt, rows_root
from corolla_core.swarm.messages import Opening, Tensor
from corolla_core.swarm.openings import BOTH, check_opening

counts = st.integers(1, 20)


def signed(count: int, start: int = 5) -> tuple[Receipt, dict[Side, list[bytes]]]:
    sides = {side: [sha256(f"{side}{at}".encode()).digest()[:8] for at in range(count)] for side in Side}
    made = any_receipt(start=start, count=count).receipt
    roots = {side: rows_root(made.session_id, start, rows) for side, rows in sides.items()}
    return replace(made, in_root=roots[Side.INPUTS], out_root=roots[Side.OUTPUTS]), sides


@given(counts, st.data())
def test_every_row_proves_itself_where_it_is_and_nowhere_else(count: int, data: st.DataObject) -> None:
    receipt, sides = signed(count)
    side = data.draw(st.sampled_from(Side))
    at, claimed = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    siblings = branch(receipt, sides[side], 5 + at)
    if at == claimed:
        check_row(receipt, side, 5 + at, sides[side][at], siblings)
    else:
        with pytest.raises(InvalidProof):
            check_row(receipt, side, 5 + claimed, sides[side][at], siblings)
    with pytest.raises(InvalidProof):
        check_row(receipt, side, 5 + at, b"x" * 8, siblings)
    with pytest.raises(InvalidProof):
        check_row(receipt, side, 5 + at, sides[side][at], [*siblings, bytes(32)])
    if siblings:
        with pytest.raises(InvalidProof):
            check_row(receipt, side, 5 + at, sides[side][at], siblings[:-1])
    with pytest.raises(InvalidInput):
        check_row(receipt, side, 5 + count, sides[side][at], siblings)


@given(counts, st.data())
def test_all_rows_prove_themselves_and_no_others_do(count: int, data: st.DataObject) -> None:
    receipt, sides = signed(count)
    for side in Side:
        check_all(receipt, side, sides[side])
    changed = list(sides[Side.INPUTS])
    changed[data.draw(st.integers(0, count - 1))] = b"x" * 8
    for wrong in (changed, sides[Side.INPUTS][1:], [*sides[Side.INPUTS], b"x" * 8], sides[Side.OUTPUTS]):
        with pytest.raises(InvalidProof):
            check_all(receipt, Side.INPUTS, wrong)


def answer(receipt: Receipt, sides: dict[Side, list[bytes]], positions: list[int]) -> tuple[Opening, bytes]:
    at = [p - receipt.pos_start for p in positions] or list(range(receipt.n_pos))
    payload = b"".join(sides[side][index] for side in BOTH for index in at)
    branches: list[list[bytes]] = [list(branch(receipt, sides[side], p)) for side in BOTH for p in positions]
    return Opening(receipt.hash(), branches, Tensor("float32", [2, len(at), 1, 2])), payload


@given(st.integers(1, 9), st.data())
def test_a_whole_answer_is_taken_only_as_it_was_signed(count: int, data: st.DataObject) -> None:
    receipt, sides = signed(count)
    positions = data.draw(st.lists(st.integers(5, 4 + count), max_size=3, unique=True))
    opening, payload = answer(receipt, sides, positions)
    found = check_opening(receipt, opening, memoryview(payload), positions=positions, sides=BOTH)
    assert found.positions == tuple(positions or range(5, 5 + count))
    assert bytes(found.rows[Side.INPUTS]) + bytes(found.rows[Side.OUTPUTS]) == payload

    def refused(opening: Opening, payload: bytes, **asked: Any) -> None:
        with pytest.raises(CorollaError):
            check_opening(receipt, opening, memoryview(payload), **({"positions": positions, "sides": BOTH} | asked))

    flipped = bytearray(payload)
    flipped[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    refused(opening, bytes(flipped))
    refused(Opening(bytes(32), opening.branches, opening.tensor), payload)
    refused(Opening(opening.receipt, [*opening.branches, []], opening.tensor), payload)
    refused(Opening(opening.receipt, opening.branches, Tensor("float32", [1, *opening.tensor.shape[1:]])), payload)
    refused(Opening(opening.receipt, opening.branches, Tensor("float32", opening.tensor.shape[:3])), payload)
    refused(opening, payload, sides=[Side.INPUTS])
