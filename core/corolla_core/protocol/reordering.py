"""Reorderings: what a beam search does to the sequences of a session, and how a receipt commits to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from eth_utils.crypto import keccak

from corolla_core.protocol.eip712 import word
from corolla_core.protocol.errors import InvalidProof
from corolla_core.protocol.ids import ZERO_HASH, Hash32
from corolla_core.protocol.receipt import Receipt


@dataclass(frozen=True, slots=True)
class Reordering:
    """Before `position` is computed, sequence i becomes what sequence `rows[i]` was, at every position held."""

    position: int
    rows: tuple[int, ...]


def order_root(reorderings: Sequence[Reordering]) -> Hash32:
    """keccak over `word(position) ‖ word(rows[0]) ‖ …` of each, in the order they happened; zero for none."""
    if not reorderings:
        return ZERO_HASH
    return Hash32(keccak(b"".join(word(number) for each in reorderings for number in (each.position, *each.rows))))


def check_order(receipt: Receipt, reorderings: Sequence[Reordering]) -> None:
    """Raises InvalidProof unless these are the reorderings signed for, and such as a node can do: one number of a
    sequence for each, at positions of the chunk that grow, each step having one at most."""
    for each in reorderings:
        if not receipt.pos_start <= each.position < receipt.pos_start + receipt.n_pos:
            raise InvalidProof(f"a reordering at {each.position}, where the receipt has no position")
        if len(each.rows) != receipt.batch or any(not 0 <= row < receipt.batch for row in each.rows):
            raise InvalidProof(f"a reordering takes {receipt.batch} numbers below {receipt.batch}")
    if any(before.position >= after.position for before, after in pairwise(reorderings)):
        raise InvalidProof("reorderings out of order")
    if order_root(reorderings) != receipt.order_root:
        raise InvalidProof("these are not the reorderings the receipt was signed for")
