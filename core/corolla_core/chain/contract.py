"""What the typed bindings share: one address, one ABI, an endpoint, and perhaps somebody who signs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from corolla_core.chain.abi import Abi, DecodedEvent, load_abi
from corolla_core.chain.account import Call
from corolla_core.chain.mined import Log, Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address


class Contract:
    """A deployed contract. Without a sender it only reads."""

    abi_name: ClassVar[str]

    def __init__(self, chain: Chain, address: Address, sender: TransactionSender | None = None) -> None:
        self.chain = chain
        self.address = address
        self._sender = sender

    @property
    def abi(self) -> Abi:
        return load_abi(self.abi_name)

    @property
    def sender(self) -> TransactionSender:
        """Who signs. ConfigError when the binding was made to read only."""
        if self._sender is None:
            raise ConfigError(f"no account to send {self.abi_name} transactions with")
        return self._sender

    async def _read(self, function: str, *arguments: Any) -> Any:
        return await self.chain.read(self.address, self.abi, function, *arguments)

    async def _send(self, function: str, *arguments: Any) -> Mined:
        """A transaction, mined. Raises what `TransactionSender.send` raises."""
        data = self.abi.encode(function, *arguments)
        return await self.sender.send(Call(self.address, data, about=f"{self.abi_name}.{function}"))

    def _events(self, mined: Mined, name: str) -> Iterable[DecodedEvent]:
        """This contract's events of one kind in a transaction."""
        return (event for event in map(self._event, mined.logs) if event is not None and event.name == name)

    def _event(self, entry: Log) -> DecodedEvent | None:
        return self.abi.decode_log(entry.topics, entry.data) if entry.address == self.address else None
