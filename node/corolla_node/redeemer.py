"""Turns vouchers into money on chain: in batches, when it is worth the gas, and never later than it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from corolla_core.protocol.errors import CorollaError, TransactionReverted
from corolla_core.protocol.ids import Address, TrancheId
from corolla_core.protocol.units import Nectar, UnixTime, Wei
from corolla_core.store.records import KeptVoucher
from corolla_node.ports import Clock

_log = structlog.get_logger(__name__)

TRANSACTION_GAS = 95_000
VOUCHER_GAS = 60_000
"""What a redemption costs whatever is in it, and what each voucher adds; a little above `contracts/gas.json`."""
MAX_BATCH = 50
MAX_CHECKED = 200
"""Redemptions asked of the chain again in one turn; where there are more, they take turns."""


@dataclass(frozen=True, slots=True)
class Thrift:
    """When redeeming is worth it. `gas_value` is what one Wei of gas is worth in millionths of a Nectar base unit (0:
    gas is free, as on a devnet); `patience` is how many times its gas a voucher must be worth to be redeemed early;
    a tranche that ends within `horizon` seconds is redeemed if it brings any profit at all."""

    gas_value: int = 1_000_000
    patience: int = 20
    horizon: int = 6 * 3600

    def cost(self, gas: int, gas_price: Wei) -> int:
        """Base units of Nectar that this much gas is worth, rounded up."""
        return -(-gas * gas_price * self.gas_value // 1_000_000)


def worth_redeeming(
    kept: Sequence[KeptVoucher], *, gas_price: Wei, thrift: Thrift, now: UnixTime, final: bool = False
) -> list[KeptVoucher]:
    """The vouchers to redeem now in one transaction, the most valuable first; empty when waiting is better.

    Never takes one that brings less than its own gas, nor a batch that brings less than its gas in all. With `final`
    (the node is going away) any profit is worth taking.
    """
    each = thrift.cost(VOUCHER_GAS, gas_price)
    paying = sorted((voucher for voucher in kept if voucher.due > each), key=lambda voucher: -voucher.due)[:MAX_BATCH]
    if not paying:
        return []
    cost = thrift.cost(TRANSACTION_GAS, gas_price) + each * len(paying)
    gain = sum(voucher.due for voucher in paying)
    pressing = final or any(v.expiry is not None and v.expiry <= now + thrift.horizon for v in paying)
    needed = cost if pressing else cost * thrift.patience
    return paying if gain > needed else []


class Till(Protocol):
    """The escrow, as the redeemer uses it. Raises ChainError."""

    async def gas_price(self) -> Wei: ...

    async def claimed(self, tranche_id: TrancheId, payee: Address) -> Nectar: ...

    async def redeem(self, vouchers: Sequence[KeptVoucher]) -> None:
        """Returns once mined. Redeeming what was redeemed before is a no-op on chain."""
        ...


class Ledger(Protocol):
    """The kept vouchers, as the redeemer uses them."""

    async def unredeemed(self) -> list[KeptVoucher]: ...

    async def redeemed(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None: ...

    async def claimed(self, expiring_from: UnixTime) -> list[KeptVoucher]:
        """Those marked redeemed, in whole or in part, on tranches that expire at that time or later."""
        ...

    async def unredeemed_again(self, tranche_id: TrancheId, payee: Address, claimed: Nectar) -> None:
        """The chain took a redemption back: this is all it has paid out."""
        ...


class Redeemer:
    """Everything it needs to know is in the store and on the chain, so that it goes on where a killed node stopped."""

    def __init__(
        self,
        till: Till,
        ledger: Ledger,
        *,
        clock: Clock,
        thrift: Thrift,
        interval: float = 60.0,
        grace: int = 24 * 3600,
    ) -> None:
        """`grace` is for how many seconds after its expiry a tranche can still be redeemed."""
        self._till = till
        self._ledger = ledger
        self._clock = clock
        self._thrift = thrift
        self._interval = interval
        self._grace = grace
        self._checked = 0
        self.total = 0
        self.held = 0
        """what vouchers promise and is not redeemed, as of the last look"""
        self._hopeless: set[tuple[TrancheId, Address, int]] = set()
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        """Look every `interval` seconds until cancelled; an unreachable chain is asked again the next time."""
        while True:
            try:
                await self.recheck()
                await self.redeem()
            except CorollaError as error:
                _log.warning("could not redeem now", error=str(error))
            except Exception:  # an endpoint's nonsense must not end the node
                _log.exception("redeeming failed")
            await asyncio.sleep(self._interval)

    async def redeem(self, *, final: bool = False) -> Nectar:
        """Redeem what is worth it now; returns what that brought. Raises ChainError or StoreError."""
        async with self._busy:
            total = 0
            while chosen := await self._choose(final=final):
                batch = [voucher for voucher in chosen if not await self._settled(voucher)]
                total += await self._redeem(batch) if batch else 0
            self.total += total
            return Nectar(total)

    async def recheck(self) -> Nectar:
        """Compare what is marked redeemed with the chain, as long as it can still be redeemed: a reorganisation that
        drops the transaction would otherwise lose the money. Returns what is due again.

        Raises ChainError or StoreError.
        """
        async with self._busy:
            marked = await self._ledger.claimed(UnixTime(max(0, int(self._clock()) - self._grace)))
            start = self._checked if self._checked < len(marked) else 0
            self._checked = start + MAX_CHECKED
            lost = 0
            for voucher in marked[start : start + MAX_CHECKED]:
                known = voucher.signed.voucher
                claimed = await self._till.claimed(known.tranche_id, known.payee)
                if claimed < voucher.claimed:
                    _log.warning("a redemption is gone from the chain", tranche=known.tranche_id.hex(), claimed=claimed)
                    await self._ledger.unredeemed_again(known.tranche_id, known.payee, claimed)
                    lost += voucher.claimed - claimed
            self.total = max(0, self.total - lost)
            return Nectar(lost)

    async def _choose(self, *, final: bool) -> list[KeptVoucher]:
        waiting = [voucher for voucher in await self._ledger.unredeemed() if _key(voucher) not in self._hopeless]
        self.held = sum(voucher.due for voucher in waiting)
        if not waiting:
            return []
        now = UnixTime(int(self._clock()))
        gas_price = await self._till.gas_price()
        return worth_redeeming(waiting, gas_price=gas_price, thrift=self._thrift, now=now, final=final)

    async def _settled(self, voucher: KeptVoucher) -> bool:
        """Whether the chain has paid it already: a node killed between the two steps redeemed without noting it."""
        known = voucher.signed.voucher
        claimed = await self._till.claimed(known.tranche_id, known.payee)
        if claimed > voucher.claimed:
            await self._ledger.redeemed(known.tranche_id, known.payee, claimed)
        return claimed >= known.cumulative

    async def _redeem(self, batch: list[KeptVoucher]) -> int:
        try:
            await self._till.redeem(batch)
        except TransactionReverted as error:
            if len(batch) > 1:
                # One bad voucher must not hold the others' money.
                return sum([await self._redeem([voucher]) for voucher in batch])
            _log.error("a voucher cannot be redeemed", tranche=batch[0].signed.voucher.tranche_id, error=str(error))
            self._hopeless.add(_key(batch[0]))
            return 0
        for voucher in batch:
            known = voucher.signed.voucher
            await self._ledger.redeemed(known.tranche_id, known.payee, known.cumulative)
        gained = sum(voucher.due for voucher in batch)
        _log.info("redeemed", vouchers=len(batch), amount=gained)
        return gained


def _key(voucher: KeptVoucher) -> tuple[TrancheId, Address, int]:
    known = voucher.signed.voucher
    return known.tranche_id, known.payee, known.cumulative
