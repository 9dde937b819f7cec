"""Gives the accounts that probe their money, as anybody gives a new account its first: by a transfer."""

from __future__ import annotations

from corolla_core.chain.account import Call
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import Nectar, Wei


class ChainPurse:
    """An account with tokens and gas money that nobody can tell is a validator's: never the one that stakes."""

    def __init__(self, chain: Chain, purse: Signer, *, staked: Address | None, gas: Wei) -> None:
        """Raises ConfigError for the account that stakes: every node can see whom that one gives money to."""
        if purse.address == staked:
            raise ConfigError("probes must be paid from another account than the one that stakes: nodes see who paid")
        self._sender = TransactionSender(chain, purse)
        self._token = Token(chain, self._sender)
        self._gas = gas

    async def holds(self, amount: Nectar) -> bool:
        """Raises ChainError."""
        return await self._token.balance_of(self._sender.address) >= amount

    async def give(self, account: Address, amount: Nectar) -> None:
        """Gas money, then tokens. Raises ChainError."""
        await self._sender.send(Call(account, b"", value=self._gas, about="gas for a new account"))
        await self._token.transfer(account, amount)
