"""What a node was paid for a session, as far as the escrow's events tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from corolla_core.chain.abi import load_abi
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.rpc import Chain, hex_bytes, hex_hash
from corolla_core.protocol.ids import Address, Hash32, TrancheId, address_bytes
from corolla_core.protocol.units import Nectar

#: endpoints commonly refuse wider ranges
_BLOCKS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Paid:
    """`amount` is what the redemption that acknowledged the session brought the node, fee included."""

    tranche_id: TrancheId
    amount: Nectar


class Payments:
    """`blocks`: how far back redemptions are looked for."""

    def __init__(self, chain: Chain, *, blocks: int = _BLOCKS_AT_ONCE) -> None:
        self._chain = chain
        self._blocks = blocks
        self._abi = load_abi("Escrow")
        self._escrow = Escrow(chain)

    async def for_session(self, node: Address, receipts: Collection[Hash32]) -> Paid | None:
        """The last redemption of the node's whose voucher acknowledges one of these receipts. Raises ChainError."""
        found: Paid | None = None
        for redeemed in await self._redemptions(node):
            if Hash32(redeemed["receiptHead"]) in receipts:
                found = Paid(TrancheId(redeemed["trancheId"]), Nectar(redeemed["amount"]))
        return found

    async def head_of(self, node: Address, receipts: Collection[Hash32]) -> tuple[TrancheId, Hash32] | None:
        """A tranche on which the node's last redemption acknowledges one of these receipts, and which. None where
        there was none, or a later session on the same tranche was redeemed since. Raises ChainError."""
        redemptions = await self._redemptions(node)
        for tranche in {TrancheId(r["trancheId"]): None for r in redemptions if Hash32(r["receiptHead"]) in receipts}:
            head = await self._escrow.receipt_head(tranche, node)
            if head in receipts:
                return tranche, head
        return None

    async def _redemptions(self, node: Address) -> list[Mapping[str, Any]]:
        """Oldest first."""
        newest = await self._chain.block_number()
        asked = {
            "address": self._chain.network.escrow,
            "fromBlock": hex(max(0, newest - self._blocks + 1)),
            "toBlock": hex(newest),
            "topics": [
                "0x" + self._abi.topic("Redeemed").hex(),
                None,
                "0x" + bytes(12).hex() + address_bytes(node).hex(),
            ],
        }
        logs = await self._chain.request("eth_getLogs", asked)
        events = [self._abi.decode_log([hex_hash(t) for t in log["topics"]], hex_bytes(log["data"])) for log in logs]
        return [event.arguments for event in events if event is not None]
