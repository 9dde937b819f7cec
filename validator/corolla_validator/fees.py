"""What nodes were paid for the sessions a validator audits, read from the escrow's events into its books."""

from __future__ import annotations

from collections.abc import Mapping

from corolla_core.chain.abi import load_abi
from corolla_core.chain.devnet_keys import DEVNET_CHAIN_IDS
from corolla_core.chain.mined import parse_logs
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.ids import Hash32, TrancheId
from corolla_core.protocol.units import Nectar
from corolla_core.store.fee_store import FeeStore, RedemptionRecord, SessionAt, SessionFees
from corolla_core.store.store import Store

#: endpoints commonly refuse wider ranges
_BLOCKS_AT_ONCE = 2_000
#: how far back the first reading goes
_FIRST_BLOCKS = 10_000
#: blocks over a redemption before it counts: none is taken back then, off a devnet
_DEPTH = 12


class Fees:
    """Reads on from the last redemption in the books."""

    def __init__(self, chain: Chain, store: Store) -> None:
        self._chain = chain
        self._store = store
        self._books = FeeStore(store)
        self._abi = load_abi("Escrow")
        self._depth = 0 if chain.chain_id in DEVNET_CHAIN_IDS else _DEPTH
        self._next = 0

    async def read(self) -> Mapping[SessionAt, SessionFees]:
        """What was paid for each session up to now. Raises ChainError, StoreError."""
        newest = await self._chain.block_number() - self._depth
        known = await self._store.run(self._books.newest_redemption)
        # The last block is read again: what was in it is kept once.
        low = max(self._next, max(0, newest - _FIRST_BLOCKS) if known is None else known)
        while low <= newest:
            high = min(low + _BLOCKS_AT_ONCE - 1, newest)
            await self._store.run(self._books.record_redemptions, await self._redeemed(low, high))
            self._next = low = high + 1
        return await self._store.run(self._books.session_fees)

    async def _redeemed(self, low: int, high: int) -> list[RedemptionRecord]:
        query = {
            "address": self._chain.network.escrow,
            "fromBlock": hex(low),
            "toBlock": hex(high),
            "topics": ["0x" + self._abi.topic("Redeemed").hex()],
        }
        found = []
        for entry in parse_logs(await self._chain.request("eth_getLogs", query)):
            event = self._abi.decode_log(entry.topics, entry.data)
            if event is not None and entry.address == self._chain.network.escrow:
                told = event.arguments
                found.append(
                    RedemptionRecord(
                        tranche_id=TrancheId(told["trancheId"]),
                        payee=told["payee"],
                        cumulative=told["cumulative"],
                        receipt_head=Hash32(told["receiptHead"]),
                        amount=Nectar(told["amount"]),
                        burned=Nectar(told["fee"]),
                        block=entry.block_number,
                    )
                )
        return found
