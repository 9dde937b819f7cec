"""SHA-256 Merkle trees (RFC 9162 shape and domain separation; SHA-256 is an EVM precompile)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from corolla_core.protocol.errors import InvalidInput, InvalidProof
from corolla_core.protocol.ids import Hash32

Buffer = bytes | bytearray | memoryview


def leaf_hash(*parts: Buffer) -> Hash32:
    """`SHA-256(0x00 ‖ parts…)`."""
    state = sha256(b"\x00")
    for part in parts:
        state.update(part)
    return Hash32(state.digest())


def node_hash(left: bytes, right: bytes) -> Hash32:
    """`SHA-256(0x01 ‖ left ‖ right)`."""
    return Hash32(sha256(b"\x01" + left + right).digest())


def merkle_root(leaves: Iterable[bytes]) -> Hash32:
    """The root over leaf hashes; an odd last node is promoted unchanged. Raises InvalidInput when there is no leaf."""
    level = list(leaves)
    if not level:
        raise InvalidInput("a Merkle tree needs a leaf")
    while len(level) > 1:
        level = _parents(level)
    return Hash32(level[0])


def merkle_proof(leaves: Sequence[bytes], index: int) -> list[tuple[bool, Hash32]]:
    """The branch of one leaf, from the leaf up: `(sibling is on the left, sibling hash)` pairs."""
    if not 0 <= index < len(leaves):
        raise InvalidInput(f"no leaf {index}")
    level, branch = list(leaves), []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            branch.append((sibling < index, Hash32(level[sibling])))
        level, index = _parents(level), index // 2
    return branch


def verify_merkle(root: bytes, leaf: bytes, branch: Sequence[tuple[bool, bytes]]) -> None:
    """Raises InvalidProof unless the branch leads from `leaf` to `root`."""
    node = leaf
    for on_left, sibling in branch:
        node = node_hash(sibling, node) if on_left else node_hash(node, sibling)
    if node != root:
        raise InvalidProof("the branch does not lead to the root")


def _parents(level: list[bytes]) -> list[bytes]:
    paired: list[bytes] = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return paired + level[len(paired) * 2 :]
