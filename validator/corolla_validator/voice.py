"""A validator's voice among the others: stake in the node registry, by which the oracle weighs what it says."""

from __future__ import annotations

import structlog

from corolla_core.chain.registry import Registry
from corolla_core.protocol.errors import TransactionReverted
from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import Nectar

_log = structlog.get_logger(__name__)

PEER_ID = b"validator"
"""What a validator registers with in place of a peer id: it serves nobody, so there is nobody to find it. Clients take
nodes from the directory, where it announces no span; whoever lists the registry can tell it from a node."""


class Voice:
    def __init__(self, registry: Registry, me: Address) -> None:
        self._registry = registry
        self._me = me

    async def join(self, stake: Nectar) -> None:
        """Register with so much stake, unless this account is registered or `stake` is 0.

        What the registry refuses leaves the validator without a voice, and is no reason not to audit. Raises
        ChainError.
        """
        if not stake or (await self._registry.node(self._me)).registered:
            return
        try:
            await self._registry.register(PEER_ID, self._me, stake)
        except TransactionReverted as error:
            _log.warning("the registry does not take this validator", why=str(error))

    async def stake(self) -> Nectar:
        """What it has at stake; nothing while it is jailed or never joined. Raises ChainError."""
        record = await self._registry.node(self._me)
        return record.stake if record.active else Nectar(0)
