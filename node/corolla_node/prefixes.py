"""What a client's sessions computed, kept for its next one that begins with the same rows.

A prefix is called by a hash over its input rows, the bytes as they travelled, with who pays, who asks, the span and the
wire dtype. A session that comes to the same name copies what is kept to where its own keys and values would go. It lies
in the memory that no session has reserved, and makes way when one does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from torch import Tensor

BLOCK = 16
"""Positions that are kept and found together."""
_UNDO = 2 * BLOCK
"""How many of the last hashes are kept for a rollback: more than a speculation drops."""


@dataclass(frozen=True, slots=True)
class Block:
    """`BLOCK` positions of one sequence: `part` of its cache, and output rows `[1, BLOCK, width]` as they travel."""

    part: Any
    rows: Tensor


class Prefixes:
    """Blocks by the name of the prefix that ends with them. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[bytes, tuple[Block, int]] = OrderedDict()
        self._limit = 0
        self.used = 0
        """bytes held"""
        self.reused = 0
        """positions found so far"""

    def limit(self, size: int) -> None:
        """No more than `size` bytes from now on: what has not been used for longest goes."""
        with self._lock:
            self._limit = size
            self._make_room(0)

    def wants(self, name: bytes, size: int) -> bool:
        """Whether `keep` would take these bytes in."""
        with self._lock:
            return size <= self._limit and name not in self._blocks

    def keep(self, names: Sequence[bytes], block: Block, size: int) -> None:
        """Keep the block that ends the last of these prefixes, each of which continues the one before."""
        with self._lock:
            if size > self._limit or names[-1] in self._blocks:
                return
            self._make_room(size)
            self._blocks[names[-1]] = block, size
            self.used += size
            self._touch(names)

    def find(self, names: Sequence[bytes], start: int) -> list[Block]:
        """The blocks of `names[start:]`, up to the first that is not here."""
        with self._lock:
            found = []
            for name in names[start:]:
                if name not in self._blocks:
                    break
                found.append(self._blocks[name][0])
            self.reused += BLOCK * len(found)
            self._touch(names[: start + len(found)])
            return found

    def _touch(self, names: Sequence[bytes]) -> None:
        """From the end on, as a block without those before it is of no use."""
        for name in reversed(names):
            if name in self._blocks:
                self._blocks.move_to_end(name)

    def _make_room(self, size: int) -> None:
        while self.used + size > self._limit and self._blocks:
            _name, (_block, freed) = self._blocks.popitem(last=False)
            self.used -= freed


class Trail:
    """What the prefixes of one sequence are called, as it grows; follows its cache through rollbacks."""

    def __init__(self, scope: bytes) -> None:
        """Sessions of different scopes have nothing in common."""
        self._hashes = [(0, sha256(scope))]
        self.names: list[bytes] = []
        """of each whole block"""

    def extend(self, rows: memoryview, tokens: int) -> None:
        """`tokens` positions more, whose input rows these are."""
        if not self._hashes:
            return
        size, done = rows.nbytes // tokens, 0
        at, running = self._hashes[-1]
        while done < tokens:
            count = BLOCK if at % BLOCK == 0 and tokens - done >= BLOCK else 1
            running = running.copy()
            running.update(rows[done * size : (done + count) * size])
            done, at = done + count, at + count
            self._hashes.append((at, running))
            if at % BLOCK == 0:
                self.names.append(running.digest())
        del self._hashes[1:-_UNDO]

    def crop(self, length: int) -> None:
        """Forget the positions from `length` on. After a rollback to where no hash is kept, no more names are given."""
        while self._hashes and self._hashes[-1][0] > length:
            self._hashes.pop()
        if self._hashes and self._hashes[-1][0] != length:
            self._hashes.clear()
        del self.names[length // BLOCK :]
