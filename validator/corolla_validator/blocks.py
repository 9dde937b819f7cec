"""The chain's blocks as beacons: nobody knows a block's hash before it is mined."""

from __future__ import annotations

from corolla_core.chain.devnet_keys import DEVNET_CHAIN_IDS
from corolla_core.chain.rpc import Chain, hex_hash
from corolla_core.protocol.errors import ChainError
from corolla_core.protocol.ids import Hash32


class ChainBeacons:
    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    async def height(self) -> int:
        return await self._chain.block_number()

    async def hash_at(self, height: int) -> Hash32:
        block = await self._chain.block(height)
        if block is None:
            raise ChainError(f"the chain has no block {height}")
        return Hash32(hex_hash(block.get("hash")))

    async def hurry(self) -> None:
        """A devnet mines when there is a transaction and never else: one block more, so that draws come."""
        if self._chain.chain_id in DEVNET_CHAIN_IDS:
            await self._chain.request("evm_mine")
