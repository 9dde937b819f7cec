"""Merkle-sum trees over `(payee, cap)` leaves: a branch proves that a payee's cap is collateralised within the total.

`leaf = H(0x00 ‖ payee ‖ cap)`, `node = H(0x01 ‖ hashL ‖ sumL ‖ hashR ‖ sumR)` with both child sums inside the hash
and checked uint128 addition (the omitted-sum forgery of early Maxwell trees does not work here). H is keccak256 over
the packed encoding; sums are uint128, big endian. The tree is padded with `(0x0, 0)` leaves to a power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from corolla_core.protocol.errors import InvalidInput, InvalidProof
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, Hash32, address_bytes
from corolla_core.protocol.units import MAX_UINT128, Nectar

MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Leaf:
    payee: Address
    cap: Nectar


@dataclass(frozen=True, slots=True)
class SumNode:
    hash: Hash32
    sum: int


@dataclass(frozen=True, slots=True)
class SumProof:
    """The branch of leaf `index`: one sibling a level, from the leaf up."""

    index: int
    siblings: tuple[SumNode, ...]


def hash_leaf(leaf: Leaf) -> SumNode:
    return SumNode(Hash32(keccak(b"\x00" + address_bytes(leaf.payee) + _u128(leaf.cap))), leaf.cap)


def hash_pair(left: SumNode, right: SumNode) -> SumNode:
    total = left.sum + right.sum
    if total > MAX_UINT128:
        raise InvalidInput("the caps add up to more than a uint128")
    packed = b"\x01" + left.hash + _u128(left.sum) + right.hash + _u128(right.sum)
    return SumNode(Hash32(keccak(packed)), total)


class SumTree:
    """A tree over leaves in the order given. `root.sum` is the amount the tranche must lock."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        if not leaves:
            raise InvalidInput("a sum tree needs a leaf")
        if len({leaf.payee for leaf in leaves}) != len(leaves):
            raise InvalidInput("a payee may appear once in a sum tree")
        width = 1 << (len(leaves) - 1).bit_length()
        padding = Leaf(ZERO_ADDRESS, Nectar(0))
        level = [hash_leaf(leaf) for leaf in [*leaves, *[padding] * (width - len(leaves))]]
        self.leaves = tuple(leaves)
        self._levels = [level]
        while len(level) > 1:
            level = [hash_pair(level[i], level[i + 1]) for i in range(0, len(level), 2)]
            self._levels.append(level)
        self.root = level[0]

    def proof(self, index: int) -> SumProof:
        if not 0 <= index < len(self.leaves):
            raise InvalidInput(f"no leaf {index}")
        siblings = tuple(level[(index >> depth) ^ 1] for depth, level in enumerate(self._levels[:-1]))
        return SumProof(index, siblings)


def verify(root: SumNode, leaf: Leaf, proof: SumProof) -> None:
    """Raises InvalidProof unless `leaf` is in the tree whose root hash and sum are `root`."""
    if len(proof.siblings) > MAX_DEPTH or not 0 <= proof.index < 1 << len(proof.siblings):
        raise InvalidProof("the branch does not fit its index")
    node = hash_leaf(leaf)
    for depth, sibling in enumerate(proof.siblings):
        pair = (sibling, node) if proof.index >> depth & 1 else (node, sibling)
        try:
            node = hash_pair(*pair)
        except InvalidInput:
            raise InvalidProof("a sum in the branch is out of range") from None
    if node != root:
        raise InvalidProof("the branch does not lead to the root")


def _u128(value: int) -> bytes:
    if not 0 <= value <= MAX_UINT128:
        raise InvalidInput(f"not a uint128: {value}")
    return value.to_bytes(16, "big")
