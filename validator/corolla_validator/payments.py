"""What a node was paid for a session, as far as the escrow's events tell."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from corolla_core.chain.abi import load_abi
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

    async def for_session(self, node: Address, receipts: Collection[Hash32]) -> Paid | None:
        """The last redemption of the node's whose voucher acknowledges one of these receipts. Raises ChainError."""
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
        found: Paid | None = None
        for entry in await self._chain.request("eth_getLogs", asked):
            event = self._abi.decode_log([hex_hash(topic) for topic in entry["topics"]], hex_bytes(entry["data"]))
            if event is not None and Hash32(event.arguments["receiptHead"]) in receipts:
                amount = event.arguments["amount"]
                found = Paid(TrancheId(event.arguments["trancheId"]), Nectar(amount))
        return found
