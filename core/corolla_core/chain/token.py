"""Nectar, the ERC-20 that pays for work."""

from __future__ import annotations

from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import Nectar


class Token(Contract):
    """Amounts are base units. Writes raise TransactionReverted (e.g. `ERC20InsufficientBalance(…)`) and whatever
    `TransactionSender.send` raises."""

    abi_name = "NectarToken"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        super().__init__(chain, chain.network.token, sender)

    async def balance_of(self, account: Address) -> Nectar:
        return Nectar(await self._read("balanceOf", account))

    async def allowance(self, owner: Address, spender: Address) -> Nectar:
        return Nectar(await self._read("allowance", owner, spender))

    async def total_supply(self) -> Nectar:
        return Nectar(await self._read("totalSupply"))

    async def approve(self, spender: Address, amount: Nectar) -> Mined:
        return await self._send("approve", spender, amount)

    async def transfer(self, to: Address, amount: Nectar) -> Mined:
        return await self._send("transfer", to, amount)

    async def mint(self, to: Address, amount: Nectar) -> Mined:
        """New tokens; only a devnet's minter may."""
        return await self._send("mint", to, amount)

    async def ensure_allowance(self, spender: Address, amount: Nectar) -> None:
        """Let `spender` take `amount` from the sender, with a transaction only when it may not yet."""
        if await self.allowance(self.sender.address, spender) < amount:
            await self.approve(spender, amount)
