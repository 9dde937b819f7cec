"""What a node was paid for the sessions held against it, as far as the escrow's events tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from corolla_core.chain.abi import load_abi
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.mined import parse_logs
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, TrancheId, address_bytes
from corolla_core.protocol.units import Nectar
from corolla_validator.ports import Paid

#: endpoints commonly refuse wider ranges
_BLOCKS_AT_ONCE = 10_000


class Payments:
    """`blocks`: how far back redemptions are looked for."""

    def __init__(self, chain: Chain, *, blocks: int = _BLOCKS_AT_ONCE) -> None:
        self._chain = chain
        self._blocks = blocks
        self._abi = load_abi("Escrow")
        self._escrow = Escrow(chain)

    async def for_sessions(self, node: Address, receipts: Collection[Hash32]) -> Paid | None:
        """All that the node redeemed with vouchers that acknowledge one of these receipts, on the tranche that brought
        it most. A voucher that acknowledges nothing pays ahead for what the next one does. Raises ChainError."""
        ahead: Counter[TrancheId] = Counter()
        found: dict[TrancheId, Paid] = {}
        for redeemed in await self._redemptions(node):
            tranche, head = TrancheId(redeemed["trancheId"]), Hash32(redeemed["receiptHead"])
            ahead[tranche] += redeemed["amount"]
            if head == ZERO_HASH:
                continue
            amount = ahead.pop(tranche)
            if head in receipts:
                before = found.get(tranche, Paid(tranche))
                found[tranche] = Paid(tranche, Nectar(before.amount + amount), before.heads | {head})
        return max(found.values(), key=lambda paid: (paid.amount, paid.tranche_id), default=None)

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
        logs = parse_logs(await self._chain.request("eth_getLogs", asked))
        events = [self._abi.decode_log(log.topics, log.data) for log in logs]
        return [event.arguments for event in events if event is not None]
