"""Openings: the rows under a receipt, shown to whoever asks, and checked against what was signed.

All rows of a side prove themselves, as the root can be computed again. Single rows come with their Merkle branches,
whose directions follow from the row's place: a branch can prove a row at no other position.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from corolla_core.protocol.errors import InvalidInput, InvalidProof, RowTooLarge
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.merkle import Buffer, merkle_proof, verify_merkle
from corolla_core.protocol.receipt import Receipt, row_leaf, rows_root

MAX_ROW_BYTES = 98_304
"""The largest row that can be opened on chain (`Faults.MAX_ROW`); a node must not serve larger ones."""


class Side(StrEnum):
    """Which rows of a receipt."""

    INPUTS = "inputs"
    OUTPUTS = "outputs"

    def root(self, receipt: Receipt) -> Hash32:
        return receipt.in_root if self is Side.INPUTS else receipt.out_root


def check_row_size(size: int) -> None:
    """Raises RowTooLarge for rows of more bytes than can be opened on chain."""
    if size > MAX_ROW_BYTES:
        raise RowTooLarge("such rows could not be opened on chain", limit=MAX_ROW_BYTES, offered=size)


def check_all(receipt: Receipt, side: Side, rows: Sequence[Buffer]) -> None:
    """Raises InvalidProof unless these are all the rows of that side, in order of position."""
    if len(rows) != receipt.n_pos:
        raise InvalidProof(f"{len(rows)} rows for {receipt.n_pos} positions")
    if rows_root(receipt.session_id, receipt.pos_start, rows) != side.root(receipt):
        raise InvalidProof(f"other {side} than were signed for")


def branch(receipt: Receipt, rows: Sequence[Buffer], position: int) -> list[Hash32]:
    """The siblings, from the leaf up, that prove the row at `position` of all `rows`. Raises InvalidInput."""
    leaves = [row_leaf(receipt.session_id, receipt.pos_start + at, row) for at, row in enumerate(rows)]
    return [sibling for _left, sibling in merkle_proof(leaves, position - receipt.pos_start)]


def check_row(receipt: Receipt, side: Side, position: int, row: Buffer, siblings: Sequence[bytes]) -> None:
    """Raises InvalidProof unless this is the row at `position`, InvalidInput where the receipt has no such position."""
    index, width = position - receipt.pos_start, receipt.n_pos
    if not 0 <= index < width:
        raise InvalidInput(f"no position {position} in this receipt")
    path, left = [], list(siblings)
    while width > 1:
        if index ^ 1 < width:  # an odd last node goes up as it is
            if not left:
                raise InvalidProof("the branch is too short")
            path.append((bool(index & 1), left.pop(0)))
        index, width = index // 2, (width + 1) // 2
    if left:
        raise InvalidProof("the branch is too long")
    verify_merkle(side.root(receipt), row_leaf(receipt.session_id, position, row), path)
