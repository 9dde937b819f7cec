"""A node whose stake a cooperative brings."""

from __future__ import annotations

import structlog

from corolla_core.chain.cooperative import Cooperative
from corolla_core.chain.registry import Registry
from corolla_core.protocol.errors import ConfigError, InsufficientFunds
from corolla_core.protocol.ids import Address, PeerId
from corolla_core.protocol.units import nectar_to_text

_log = structlog.get_logger(__name__)


async def ensure_pooled(registry: Registry, cooperative: Cooperative, *, account: Address, peer_id: PeerId) -> None:
    """Launch the cooperative, whose node `account` is, or bring the registered node's peer id up to date.

    Raises ConfigError where it is another's node or another owns the stake, InsufficientFunds while members have yet to
    deposit or where the stake is below the network's minimum (the node's own money is never added to the pool's),
    ChainError.
    """
    pool = await cooperative.pool()
    if pool.node != account:
        raise ConfigError(f"the cooperative {cooperative.address} is behind the node {pool.node}, not {account}")
    record = await registry.node(account)
    if record.registered and record.owner != cooperative.address:
        raise ConfigError(f"{account} is registered already, with a stake that is {record.owner}'s")
    if not record.registered:
        if pool.deposited < pool.stake:
            waiting = [member.account for member in pool.members if not member.joined]
            raise InsufficientFunds(
                f"the cooperative waits for the deposits of {', '.join(waiting)}",
                available=pool.deposited,
                needed=pool.stake,
            )
        if await registry.accepted_owner(account) != cooperative.address:
            await registry.accept_owner(cooperative.address)
        _log.info("launching the cooperative", account=account, stake=nectar_to_text(pool.stake))
        await cooperative.launch(peer_id.encode())
        return
    least = await registry.min_stake()
    if record.stake < least:
        text = f"the cooperative's stake is {nectar_to_text(record.stake)}, and {nectar_to_text(least)} the least"
        raise InsufficientFunds(text, available=record.stake, needed=least)
    if record.peer_id != peer_id.encode():
        await registry.update_peer_id(peer_id.encode())
