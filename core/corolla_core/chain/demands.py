"""Which rows a node is asked to open on chain: its `OpeningChallenged` logs, as they come."""

from __future__ import annotations

from dataclasses import dataclass

from corolla_core.chain.faults import MAX_RESPONSE_SECONDS, Faults, Side
from corolla_core.chain.mined import parse_logs
from corolla_core.chain.rpc import Chain, hex_int
from corolla_core.protocol.errors import ChainError, RpcRefused
from corolla_core.protocol.ids import Address, Hash32, address_bytes
from corolla_core.protocol.units import UnixTime

OVERLAP = 64
"""Blocks read again each time: a reorganisation may have moved a challenge to a block that was read before."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One row of `node`'s, under the receipt with this hash, that somebody demanded to see."""

    challenge: Hash32
    node: Address
    challenger: Address
    receipt: Hash32
    position: int
    side: Side
    deadline: UnixTime


class DemandLog:
    """The challenges of one node. Keeps no place on disk that could be lost or fall behind: no challenge stays open for
    longer than `MAX_RESPONSE_SECONDS`, so the first look goes back that far, whatever happened before."""

    def __init__(self, chain: Chain, node: Address, *, range_size: int = 2000) -> None:
        """Raises ConfigError on a network without provable faults."""
        faults = Faults(chain)
        self._chain = chain
        self._abi = faults.abi
        self._node = node
        self._filter = {
            "address": faults.address,
            "topics": [
                "0x" + self._abi.topic("OpeningChallenged").hex(),
                None,
                "0x" + bytes(12).hex() + address_bytes(node).hex(),
            ],
        }
        self._range = range_size
        self._next: int | None = None
        self._found: list[Demand] = []

    async def news(self) -> list[Demand]:
        """What was demanded since the last call, and some of what was before it again. What became of each is the
        contract's to say (`Faults.opening`).

        Raises ChainError; then the next call goes on where this one stopped, and what it had found is not lost.
        """
        head = await self._chain.block_number()
        if self._next is None:
            self._next = await self._first_block(head)
        self._next = max(0, min(self._next, head + 1 - OVERLAP))
        while self._next <= head:
            high = min(self._next + self._range - 1, head)
            try:
                self._found += await self._read(self._next, high)
            except RpcRefused:
                if self._range == 1:
                    raise
                self._range //= 2  # endpoints bound how many logs they return at once
                continue
            self._next = high + 1
        found, self._found = self._found, []
        return found

    async def _read(self, low: int, high: int) -> list[Demand]:
        asked = {**self._filter, "fromBlock": hex(low), "toBlock": hex(high)}
        found = []
        for entry in parse_logs(await self._chain.request("eth_getLogs", asked)):
            event = self._abi.decode_log(entry.topics, entry.data)
            if event is None or event.name != "OpeningChallenged" or event.arguments["node"] != self._node:
                continue
            said = event.arguments
            if said["side"] not in list(Side):
                raise ChainError(f"the endpoint sent {said['side']} for a side")
            found.append(
                Demand(
                    challenge=Hash32(said["challengeId"]),
                    node=said["node"],
                    challenger=said["challenger"],
                    receipt=Hash32(said["receiptHash"]),
                    position=said["position"],
                    side=Side(said["side"]),
                    deadline=UnixTime(said["deadline"]),
                )
            )
        return found

    async def _first_block(self, head: int) -> int:
        """The first block that a challenge which is still open can be in: by halves, as blocks' times only grow."""
        oldest = await self._time(head) - MAX_RESPONSE_SECONDS
        low, high = 0, head
        while low < high:
            middle = (low + high) // 2
            if await self._time(middle) < oldest:
                low = middle + 1
            else:
                high = middle
        return low

    async def _time(self, number: int) -> int:
        block = await self._chain.block(number)
        if block is None:
            raise ChainError(f"the chain has no block {number}")
        return hex_int(block.get("timestamp"))
