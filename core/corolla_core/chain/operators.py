"""Whom a consortium knows: the accounts that take part in a private swarm (docs/adr/0050)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corolla_core.chain.abi import load_abi
from corolla_core.chain.account import Call
from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.errors import ChainError, ConfigError
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.units import UnixTime


@dataclass(frozen=True, slots=True)
class Attestation:
    """`metadata` is the hash of what the consortium keeps about the account; `expiry` 0 where it was revoked."""

    account: Address
    metadata: Hash32
    expiry: UnixTime


class Operators(Contract):
    """Writes are the consortium's alone, and raise TransactionReverted with its reason. Raises ConfigError on
    a network that is not private."""

    abi_name = "OperatorRegistry"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        if not chain.network.is_private:
            raise ConfigError(f"network {chain.network.name} is no private swarm: it names no `operators` contract")
        super().__init__(chain, chain.network.operators, sender)

    async def attest(self, account: Address, metadata: Hash32, expiry: UnixTime) -> Mined:
        return await self._send("attest", account, metadata, expiry)

    async def revoke(self, account: Address) -> Mined:
        return await self._send("revoke", account)

    async def attested(self, accounts: Sequence[Address]) -> list[bool]:
        """Of each, in their order, whether it is attested now."""
        answers: Sequence[bool] = await self._read("areAttested", list(accounts))
        if len(answers) != len(accounts):
            raise ChainError(f"asked of {len(accounts)} accounts, told of {len(answers)}")
        return list(answers)

    async def all(self) -> list[Attestation]:
        """Every attestation that was not revoked, expired ones included."""
        found = []
        for account in await self._read("accounts"):
            metadata, expiry = await self._read("attestation", account)
            found.append(Attestation(account, Hash32(metadata), UnixTime(expiry)))
        return found


async def deploy_operators(sender: TransactionSender, consortium: Address) -> Address:
    """A registry that `consortium` owns, which attests nobody yet."""
    data = load_abi("OperatorRegistry").creation(consortium)
    mined = await sender.send(Call(None, data, about="deploying OperatorRegistry"))
    if mined.contract is None:
        raise ChainError("deploying OperatorRegistry created nothing")
    return mined.contract
