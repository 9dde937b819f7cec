"""The seams of the node: what it needs of the model, the swarm, the chain and the store, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from corolla_core.protocol.errors import NetworkError
from corolla_core.protocol.ids import Address, Hash32, SessionId, TrancheId
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import SumNode
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher
from corolla_core.store.kept_rows import Place
from corolla_core.swarm.messages import AnyMessage, Endpoint

Clock = Callable[[], float]
"""Seconds since the epoch, with a fraction; `time.time` outside tests."""


class Weights(Protocol):
    """The weights of the blocks it serves, on disk as the checkpoint stores them, in chunks; see `model.chunks`."""

    def size(self, chunk: tuple[int, int]) -> int:
        """Bytes in the (block, index) chunk. Raises NotServed or InvalidInput where it has none such. Never blocks."""
        ...

    def digests(self, account: Address, salt: Hash32, chunks: Sequence[tuple[int, int]]) -> list[Hash32]:
        """See `protocol.possession`. Raises ModelError where they cannot be read any more. Blocks."""
        ...


class Cache(Protocol):
    """The KV cache of one session over its span."""

    @property
    def length(self) -> int: ...

    def crop(self, length: int) -> None: ...

    def part(self, start: int, stop: int) -> Any:
        """A copy of these positions, for blocks that `batches`."""
        ...

    def append(self, part: Any) -> None:
        """Take in what `part` gave of a cache that held the same positions before it."""
        ...

    def reorder(self, indices: list[int]) -> None: ...


class Blocks(Protocol):
    """Consecutive blocks of a model, loaded. Everything but `span` and `hidden_size` runs on the compute thread."""

    @property
    def span(self) -> Span: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def batches(self) -> bool:
        """Whether a position's keys and values depend on those up to it alone, and are kept one by one."""
        ...

    def new_cache(self, batch: int, max_tokens: int) -> Cache: ...

    def forward(self, hidden_BTD: torch.Tensor, cache: Any) -> torch.Tensor:
        """`cache` is one that `new_cache` gave."""
        ...

    def forward_many(self, steps: Sequence[tuple[torch.Tensor, Any]]) -> list[torch.Tensor | Exception]:
        """`forward` of each, if possible in one pass; the exception that a step raises stands in its place."""
        ...

    def sub(self, span: Span) -> Blocks: ...

    def kv_bytes(self, batch: int, tokens: int) -> int: ...


class Link(Protocol):
    """An authenticated connection to a peer. `send` never blocks and is called from the event loop only."""

    @property
    def peer(self) -> Address: ...

    @property
    def closed(self) -> bool: ...

    def send(self, message: AnyMessage, payload: bytes | bytearray | memoryview | None = None) -> None: ...

    async def close(self) -> None: ...


class LinkHandler(Protocol):
    """Who hears what comes over links; see `swarm.connection.Handler`."""

    def on_message(self, conn: Link, message: AnyMessage, payload: memoryview) -> None: ...

    def on_lost(self, conn: Link, error: NetworkError | None) -> None: ...


class Dialer(Protocol):
    """Connects to an endpoint, whose messages then reach `handler`. Raises NetworkError."""

    async def __call__(self, endpoint: Endpoint, /, *, handler: LinkHandler) -> Link: ...


class OnChainTranche(Protocol):
    """A tranche as the escrow records it. `sum_node` is the root of its tree and the amount it locked."""

    @property
    def payer(self) -> Address: ...

    @property
    def signer(self) -> Address: ...

    @property
    def sum_node(self) -> SumNode: ...

    @property
    def expiry(self) -> UnixTime: ...


class Tranches(Protocol):
    """Reads tranches from the chain. Raises TrancheUnknown, or ChainError when the chain cannot be asked."""

    async def tranche(self, tranche_id: TrancheId) -> OnChainTranche: ...


class Memory(Protocol):
    """What the node remembers of a tranche from before it was started."""

    async def best(self, tranche_id: TrancheId) -> SignedVoucher | None:
        """The highest voucher held on this tranche."""
        ...

    async def charged(self, tranche_id: TrancheId) -> Nectar: ...

    async def place(self, receipt: Hash32) -> Place | None:
        """Where the rows under a receipt lie."""
        ...

    async def claim_nonce(self, nonce: bytes, session: SessionId, client: Address) -> None:
        """Returns once it is on disk that a session was opened with this nonce. Raises NonceReused where one was."""
        ...

    async def receipts_after(self, t_out: int, after: Hash32, before: int, limit: int) -> list[SignedReceipt]:
        """This node's receipts sorted by (`t_out`, hash), from behind this one on, made before `before` (Unix
        milliseconds), at most `limit`. Raises StoreError."""
        ...

    async def receipts_named(self, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        """Those of these receipts that are kept, whoever signed them. Raises StoreError."""
        ...
