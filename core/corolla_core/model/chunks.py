"""The weights of some blocks as the checkpoint stores them, in the chunks that the manifest hashes them in.

A block's chunks are those of its tensors, sorted by name, one tensor's after another's (see `model.manifest`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.layout import TensorEntry
from corolla_core.model.manifest import CHUNK_BYTES
from corolla_core.model.partial import tensors_by_block
from corolla_core.protocol.errors import InvalidInput, NotServed
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.possession import possession_digest
from corolla_core.protocol.span import Span

Chunk = tuple[int, int]
"""(block, which of its chunks)"""


class Chunks:
    """Reads the checkpoint's files and not the memory, where weights may be of another type than they are stored."""

    def __init__(self, checkpoint: Checkpoint, span: Span) -> None:
        """Reads only the headers of the files. Raises ModelError."""
        self.span = span
        self._checkpoint = checkpoint
        names = tensors_by_block(span, checkpoint.config, checkpoint.tensor_names)
        self._tensors = {block: [checkpoint.entry(name) for name in sorted(names[block])] for block in span.blocks()}
        self._starts = {block: _starts(entries) for block, entries in self._tensors.items()}

    def count(self, block: int) -> int:
        """How many chunks a block has. Raises NotServed for one outside the span."""
        if block not in self._starts:
            raise NotServed(f"no block {block} among {self.span}")
        return self._starts[block][-1]

    def size(self, chunk: Chunk) -> int:
        """Bytes in a chunk. Raises NotServed, and InvalidInput for a chunk the block has not."""
        _entry, start, end = self._place(chunk)
        return end - start

    def read(self, chunk: Chunk) -> bytearray:
        """Raises what `size` does, and ModelError where the checkpoint is not what it was. Blocks."""
        entry, start, end = self._place(chunk)
        buffer = bytearray(end - start)
        self._checkpoint.read_part(entry, start, memoryview(buffer))
        return buffer

    def digests(self, account: Address, salt: Hash32, chunks: Sequence[Chunk]) -> list[Hash32]:
        """What `account` has to show for these. One chunk in memory at a time. Raises what `read` does. Blocks."""
        return [possession_digest(account, salt, self.read(chunk)) for chunk in chunks]

    def _place(self, chunk: Chunk) -> tuple[TensorEntry, int, int]:
        block, index = chunk
        if not 0 <= index < self.count(block):
            raise InvalidInput(f"block {block} has {self.count(block)} chunks, no chunk {index}")
        starts = self._starts[block]
        tensor = bisect_right(starts, index) - 1
        entry, start = self._tensors[block][tensor], (index - starts[tensor]) * CHUNK_BYTES
        return entry, start, min(start + CHUNK_BYTES, entry.nbytes)


def _starts(entries: Sequence[TensorEntry]) -> list[int]:
    """The first chunk of each tensor, and behind them how many there are in all. A tensor of nothing has one."""
    return list(accumulate((max(1, -(-entry.nbytes // CHUNK_BYTES)) for entry in entries), initial=0))
