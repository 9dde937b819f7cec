"""The node's dealings with the contracts: reading tranches, redeeming, registering, staking."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from corolla_core.chain.demands import Demand, DemandLog
from corolla_core.chain.escrow import Escrow, RedeemItem
from corolla_core.chain.faults import Faults, Opening
from corolla_core.chain.models import Models
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.token import Token
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import InsufficientFunds, ModelError
from corolla_core.protocol.ids import Address, Hash32, PeerId, TrancheId
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.units import Nectar, UnixTime, Wei, nectar_to_text
from corolla_core.store.records import KeptVoucher

_log = structlog.get_logger(__name__)


class EscrowTill:
    """The escrow as `redeemer.Till`."""

    def __init__(self, chain: Chain, escrow: Escrow) -> None:
        self._chain = chain
        self._escrow = escrow

    async def gas_price(self) -> Wei:
        return Wei(int(await self._chain.request("eth_gasPrice"), 16))

    async def claimed(self, tranche_id: TrancheId, payee: Address) -> Nectar:
        return await self._escrow.claimed(tranche_id, payee)

    async def redeem(self, vouchers: Sequence[KeptVoucher]) -> None:
        await self._escrow.redeem([RedeemItem(kept.signed, kept.leaf, kept.proof) for kept in vouchers])


class FaultsDocket:
    """The contract of provable faults as `opener.Docket`."""

    def __init__(self, chain: Chain, faults: Faults, node: Address) -> None:
        self._chain = chain
        self._faults = faults
        self._log = DemandLog(chain, node)

    async def news(self) -> list[Demand]:
        return await self._log.news()

    async def opening(self, challenge: Hash32) -> Opening:
        return await self._faults.opening(challenge)

    async def now(self) -> UnixTime:
        return await self._chain.now()

    async def open(self, challenge: Hash32, row: bytes, branch: Sequence[bytes]) -> None:
        await self._faults.open(challenge, row, branch)


async def check_model(models: Models, manifest: Manifest) -> tuple[NumericClass, ...]:
    """The arithmetic that the network admits for this model; all where it names none. Raises ModelError unless the
    network's version of it is the one on disk."""
    published = await models.latest(manifest.name)
    if published.manifest_root != manifest.root:
        raise ModelError(
            f"{manifest.name} on disk is 0x{manifest.root.hex()}, the network's is 0x{published.manifest_root.hex()}"
        )
    return published.numeric_classes


async def ensure_registered(
    registry: Registry, token: Token, *, account: Address, peer_id: PeerId, owner: Address | None, stake: Nectar | None
) -> Nectar:
    """Register with a stake, or bring a registered node's stake and peer id up to date; returns the stake.

    `stake` None means the network's minimum; more than that is added to a lower stake. Raises InsufficientFunds when
    the account does not own enough, ChainError.
    """
    record = await registry.node(account)
    wanted = max(await registry.min_stake(), stake or 0)
    missing = Nectar(max(0, wanted - record.stake)) if record.registered else Nectar(wanted)
    if missing:
        available = await token.balance_of(account)
        if available < missing:
            text = f"{account} needs {nectar_to_text(missing)} more to stake and has {nectar_to_text(available)}"
            raise InsufficientFunds(text, available=available, needed=missing)
    if not record.registered:
        _log.info("registering", account=account, stake=nectar_to_text(missing))
        await registry.register(peer_id.encode(), owner or account, missing)
        return missing
    if missing:
        _log.info("adding stake", account=account, amount=nectar_to_text(missing))
        await registry.add_stake(missing)
    if record.peer_id != peer_id.encode():
        await registry.update_peer_id(peer_id.encode())
    return Nectar(record.stake + missing)
