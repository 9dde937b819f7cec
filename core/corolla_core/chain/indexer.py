"""Events in the order of the canonical chain, through restarts and reorganisations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from corolla_core.chain.events import Event, parse
from corolla_core.chain.mined import Log, parse_logs
from corolla_core.chain.rpc import Chain, hex_hash
from corolla_core.protocol.errors import ChainUnreachable, RpcRefused
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32

_log = structlog.get_logger(__name__)

Row = tuple[int, bytes, bytes]


class BlockLog(Protocol):
    """Where an index keeps the blocks it applied (`store.IndexStore` is one): `(number, hash, events)` rows."""

    async def blocks(self) -> list[Row]: ...
    async def replace(self, *, above: int, blocks: Sequence[Row], forget: Sequence[int] = ()) -> None: ...


@dataclass(frozen=True, slots=True)
class Indexed:
    """An event and where the chain has it. `tx_hash` is zero where a log was kept by a version that did not note it."""

    event: Event
    block_number: int
    block_hash: Hash32
    log_index: int
    contract: Address
    tx_hash: Hash32


@dataclass(frozen=True, slots=True)
class Update:
    """What one look at the chain changed: first undo `reverted` (newest first), then do `applied` (oldest first)."""

    reverted: tuple[Indexed, ...]
    applied: tuple[Indexed, ...]
    head: int


class Handler(Protocol):
    """Who is told. `revert` gets exactly the events it was given, in reverse."""

    def apply(self, indexed: Indexed) -> None: ...
    def revert(self, indexed: Indexed) -> None: ...


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A block that was canonical when applied. The chain's having it still proves all below it unchanged."""

    number: int
    hash: Hash32
    packed: bytes
    events: tuple[Indexed, ...]


class _Moved(Exception):
    """The chain reorganised while we read it."""


class Indexer:
    """Follows the network's contracts from `start` on, `confirmations` blocks behind the head.

    `await load()` once, fold `events` into a state, then apply each `poll()`'s update. What an update says is in the
    log before it is returned; a process that dies in between finds it in `events` on its next start.
    """

    def __init__(
        self,
        chain: Chain,
        log: BlockLog | None = None,
        *,
        confirmations: int = 0,
        start: int = 0,
        range_size: int = 2000,
        empty_checkpoints: int = 64,
    ) -> None:
        self._chain = chain
        self._log = log
        self._confirmations = confirmations
        self._start = start
        self._range = range_size
        self._empty_checkpoints = empty_checkpoints
        self._checkpoints: list[_Checkpoint] = []
        network = chain.network
        followed = {network.escrow, network.registry, network.models}
        followed |= {network.faults, network.disputes, network.reputation}
        self._contracts = sorted(followed - {ZERO_ADDRESS})

    @property
    def events(self) -> list[Indexed]:
        """All events applied so far, oldest first."""
        return [event for checkpoint in self._checkpoints for event in checkpoint.events]

    @property
    def head(self) -> int:
        """The last block applied; `start - 1` before the first."""
        return self._checkpoints[-1].number if self._checkpoints else self._start - 1

    async def load(self) -> None:
        """Take up where the log ends."""
        rows = await self._log.blocks() if self._log is not None else []
        self._checkpoints = [_checkpoint(number, Hash32(digest), packed) for number, digest, packed in rows]

    async def poll(self) -> Update:
        """Catch up with the chain. Raises ChainError, StoreError; then nothing has changed, or a
        prefix of the update has and the next poll brings the rest."""
        reverted = await self._undo_orphans()
        applied: list[Indexed] = []
        target = await self._chain.block_number() - self._confirmations
        while self.head < target:
            try:
                checkpoints = await self._read_range(self.head + 1, min(self.head + self._range, target))
            except RpcRefused:
                if self._range == 1:
                    raise
                self._range //= 2  # endpoints bound how many logs they return at once
                continue
            except _Moved:
                break  # the next poll finds what moved
            await self._commit(checkpoints)
            applied += [event for checkpoint in checkpoints for event in checkpoint.events]
        return Update(tuple(reverted), tuple(applied), self.head)

    async def run(
        self, handler: Handler, *, interval: float = 2.0, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """Load, replay what is known to `handler`, then keep it current until cancelled. Outages are waited out."""
        await self.load()
        for indexed in self.events:
            handler.apply(indexed)
        while True:
            try:
                update = await self.poll()
            except ChainUnreachable as error:
                _log.warning("index.waiting", error=str(error))
            else:
                for indexed in update.reverted:
                    handler.revert(indexed)
                for indexed in update.applied:
                    handler.apply(indexed)
            await sleep(interval)

    async def _undo_orphans(self) -> list[Indexed]:
        keep = len(self._checkpoints)
        while keep and not await self._is_canonical(self._checkpoints[keep - 1]):
            keep -= 1
        if keep == len(self._checkpoints):
            return []
        orphans = self._checkpoints[keep:]
        above = self._checkpoints[keep - 1].number if keep else self._start - 1
        if self._log is not None:
            await self._log.replace(above=above, blocks=())
        self._checkpoints = self._checkpoints[:keep]
        _log.info("index.reorg", above=above, blocks=len(orphans))
        return [event for orphan in reversed(orphans) for event in reversed(orphan.events)]

    async def _is_canonical(self, checkpoint: _Checkpoint) -> bool:
        return await self._hash_of(checkpoint.number) == checkpoint.hash

    async def _hash_of(self, number: int) -> Hash32 | None:
        block = await self._chain.block(number)
        return None if block is None else hex_hash(block.get("hash"))

    async def _read_range(self, low: int, high: int) -> list[_Checkpoint]:
        """Checkpoints of the blocks with events in [low, high] and of `high`. Raises _Moved unless all of it was read
        from one chain that continues ours."""
        last = await self._hash_of(high)
        query = {"fromBlock": hex(low), "toBlock": hex(high), "address": self._contracts}
        logs = parse_logs(await self._chain.request("eth_getLogs", query))
        blocks: dict[int, list[Log]] = {high: []}
        for entry in sorted(logs, key=lambda each: (each.block_number, each.index)):
            blocks.setdefault(entry.block_number, []).append(entry)
        numbers = sorted(blocks)
        below = self._checkpoints[-1] if self._checkpoints else None
        hashes, continues = await asyncio.gather(
            asyncio.gather(*(self._hash_of(number) for number in numbers)),
            self._is_canonical(below) if below is not None else _yes(),
        )
        if not continues or last is None or hashes[-1] != last or numbers[-1] != high or numbers[0] < low:
            raise _Moved
        checkpoints = []
        for number, found in zip(numbers, hashes, strict=True):
            if found is None or any(entry.block_hash != found for entry in blocks[number]):
                raise _Moved
            checkpoints.append(_checkpoint(number, found, _pack(blocks[number])))
        return checkpoints

    async def _commit(self, checkpoints: list[_Checkpoint]) -> None:
        together = [*self._checkpoints, *checkpoints]
        empty = [c.number for c in together[:-1] if not c.events]
        forget = set(empty[: max(0, len(empty) - self._empty_checkpoints)])
        if self._log is not None:
            rows = [(c.number, c.hash, c.packed) for c in checkpoints if c.number not in forget]
            await self._log.replace(above=self.head, blocks=rows, forget=sorted(forget))
        self._checkpoints = [c for c in together if c.number not in forget]


async def _yes() -> bool:
    return True


class _Kept(msgspec.Struct, array_like=True, frozen=True):
    """A log as the chain has it, for later versions to read more from."""

    index: int
    contract: str
    topics: list[bytes]
    data: bytes
    tx_hash: bytes = ZERO_HASH


def _checkpoint(number: int, digest: Hash32, packed: bytes) -> _Checkpoint:
    events = []
    for kept in msgspec.msgpack.decode(packed, type=list[_Kept]):
        event = parse(kept.topics, kept.data)
        if event is not None:
            where = Address(kept.contract)
            events.append(Indexed(event, number, digest, kept.index, where, Hash32(kept.tx_hash)))
    return _Checkpoint(number, digest, packed, tuple(events))


def _pack(logs: list[Log]) -> bytes:
    return msgspec.msgpack.encode(
        [_Kept(log.index, log.address, list(log.topics), log.data, log.tx_hash) for log in logs]
    )
