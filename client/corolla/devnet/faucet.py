"""Money for nothing, on a devnet: its token lets the deployer mint, and the chain's first accounts are rich."""

from __future__ import annotations

from corolla_core.chain.account import Call
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import ONE_NECTAR, Nectar, Wei

FUNDS = Nectar(1000 * ONE_NECTAR)
GAS = Wei(10**18)


async def fund(faucet: TransactionSender, account: Address, *, funds: Nectar = FUNDS, gas: Wei = GAS) -> None:
    """Tokens and gas money. Raises ChainError."""
    await faucet.send(Call(account, b"", value=gas, about="gas money"))
    await Token(faucet.chain, faucet).mint(account, funds)
