"""Cooperatives: several owners' stake behind one node, and what it brings, by fixed shares (docs/adr/0049)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ChainError, ConfigError
from corolla_core.protocol.ids import ZERO_ADDRESS, Address
from corolla_core.protocol.units import Nectar, UnixTime


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the contract sees it now. `due` is what it can withdraw before anything more is collected."""

    account: Address
    shares: int
    joined: bool
    withdrawn: Nectar
    due: Nectar


@dataclass(frozen=True, slots=True)
class Pool:
    """A cooperative as the contract sees it now. `dissolvable_at` is 0 without notice; `notice` is seconds."""

    node: Address
    per_share: Nectar
    total_shares: int
    notice: int
    deposited: Nectar
    launched: bool
    dissolvable_at: UnixTime
    members: tuple[Member, ...]

    @property
    def stake(self) -> Nectar:
        """What is staked at launch."""
        return Nectar(self.per_share * self.total_shares)


class CooperativeFactory(Contract):
    """Where the network's cooperatives come from. Raises ConfigError on a network without one."""

    abi_name = "CooperativeFactory"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        if chain.network.cooperatives == ZERO_ADDRESS:
            raise ConfigError(f"network {chain.network.name} has no cooperatives")
        super().__init__(chain, chain.network.cooperatives, sender)

    async def create(self, node: Address, shares: Mapping[Address, int], *, per_share: Nectar, notice: int) -> Address:
        """A new cooperative behind `node`. Raises TransactionReverted with what is wrong with the terms."""
        mined = await self._send("create", (node, list(shares), list(shares.values()), per_share, notice))
        for event in self._events(mined, "CooperativeCreated"):
            return Address(event.arguments["cooperative"])
        raise ChainError("creating a cooperative left no event")

    async def cooperative(self, account: Address) -> Cooperative:
        """The one at this address. Raises ConfigError for what this factory did not create: only its own code is known
        to give deposits back."""
        if not await self._read("isCooperative", account):
            raise ConfigError(f"{account} is no cooperative of network {self.chain.network.name}")
        return Cooperative(self.chain, account, self._sender)


class Cooperative(Contract):
    """Writes act for the sender's account and raise TransactionReverted with the contract's reason."""

    abi_name = "Cooperative"

    async def pool(self) -> Pool:
        members = []
        for account in await self._read("members"):
            shares, joined, withdrawn, due = await self._read("memberOf", account)
            members.append(Member(account, shares, joined, Nectar(withdrawn), Nectar(due)))
        return Pool(
            node=await self._read("node"),
            per_share=Nectar(await self._read("perShare")),
            total_shares=await self._read("totalShares"),
            notice=await self._read("notice"),
            deposited=Nectar(await self._read("deposited")),
            launched=await self._read("launched"),
            dissolvable_at=UnixTime(await self._read("dissolvableAt")),
            members=tuple(members),
        )

    async def join(self, deposit: Nectar) -> Mined:
        """Deposit the sender's part; `deposit` is what the contract may take for it. Approves that first if needed."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, deposit)
        return await self._send("join")

    async def leave(self) -> Mined:
        return await self._send("leave")

    async def launch(self, peer_id: bytes) -> Mined:
        """Stake everything and register the sender, the cooperative's node, which has accepted it as its owner."""
        return await self._send("launch", peer_id)

    async def collect(self) -> Mined:
        """Bring in what the node has earned."""
        return await self._send("collect")

    async def reclaim_stake(self) -> Mined:
        """Bring in what has unbonded."""
        return await self._send("reclaimStake")

    async def withdraw(self) -> Nectar:
        """Pay the sender all it is due; returns how much."""
        mined = await self._send("withdraw")
        return Nectar(sum(event.arguments["amount"] for event in self._events(mined, "Withdrawn")))

    async def give_notice(self) -> Mined:
        return await self._send("giveNotice")

    async def dissolve(self) -> Mined:
        return await self._send("dissolve")
