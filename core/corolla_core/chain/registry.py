"""The node registry: who serves, and the stake behind them."""

from __future__ import annotations

from dataclasses import dataclass

from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.ids import ZERO_ADDRESS, Address
from corolla_core.protocol.units import Nectar, UnixTime


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as the registry sees it now. `owner` is the zero address when it never registered.

    `unbonding_at`, `locked_until` and `jailed_until` are 0 when they do not apply.
    """

    owner: Address
    peer_id: bytes
    stake: Nectar
    unbonding: Nectar
    unbonding_at: UnixTime
    locked: Nectar
    locked_until: UnixTime
    jailed_until: UnixTime
    active: bool

    @property
    def registered(self) -> bool:
        return self.owner != ZERO_ADDRESS


class Registry(Contract):
    """`node` defaults to the sender's own account. Writes raise TransactionReverted with the contract's reason."""

    abi_name = "NodeRegistry"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        super().__init__(chain, chain.network.registry, sender)

    async def register(self, peer_id: bytes, owner: Address, stake: Nectar) -> Mined:
        """Register the sender as a node, staking its tokens for `owner`; approves the registry first if needed."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, stake)
        return await self._send("register", peer_id, owner, stake)

    async def accept_owner(self, owner: Address) -> Mined:
        """Let `owner` register the sender, with which all the sender earns is the owner's for good."""
        return await self._send("acceptOwner", owner)

    async def accepted_owner(self, node: Address) -> Address:
        return Address(await self._read("acceptedOwner", node))

    async def update_peer_id(self, peer_id: bytes) -> Mined:
        return await self._send("updatePeerId", peer_id)

    async def add_stake(self, amount: Nectar, *, node: Address | None = None) -> Mined:
        """Add the sender's tokens to a node's stake; approves the registry first if needed."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, amount)
        return await self._send("addStake", node or self.sender.address, amount)

    async def begin_unstake(self, amount: Nectar, *, node: Address | None = None) -> Mined:
        """Start unbonding; only the owner may. It restarts the delay of what is unbonding already."""
        return await self._send("beginUnstake", node or self.sender.address, amount)

    async def withdraw_stake(self, *, node: Address | None = None) -> Nectar:
        """Send what has unbonded to the owner; returns how much."""
        mined = await self._send("withdrawStake", node or self.sender.address)
        return Nectar(sum(event.arguments["amount"] for event in self._events(mined, "StakeWithdrawn")))

    async def node(self, account: Address) -> NodeRecord:
        owner, peer_id, stake, unbonding, at, locked, locked_until, jailed, active = await self._read("nodeOf", account)
        return NodeRecord(
            owner=owner,
            peer_id=peer_id,
            stake=Nectar(stake),
            unbonding=Nectar(unbonding),
            unbonding_at=UnixTime(at),
            locked=Nectar(locked),
            locked_until=UnixTime(locked_until),
            jailed_until=UnixTime(jailed),
            active=active,
        )

    async def is_active(self, account: Address) -> bool:
        return bool(await self._read("isActive", account))

    async def min_stake(self) -> Nectar:
        return Nectar(await self._read("minStake"))

    async def unbonding_delay(self) -> int:
        """Seconds."""
        return int(await self._read("unbondingDelay"))
