"""The client's money on chain: deposits, balances, tranches opened and taken back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from corolla.values import Balance
from corolla.wallet import TrancheLeases
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import InsufficientFunds, StoreError, TrancheUnknown
from corolla_core.protocol.ids import ZERO_HASH, Address, TrancheId
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.sumtree import SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import tranche_id
from corolla_core.store.client_store import ClientStore
from corolla_core.store.records import ClientTranche
from corolla_core.store.store import Store

_log = structlog.get_logger(__name__)

#: How often, and how many seconds apart, to look whether another process has opened the tranche it planned.
LEASE_ATTEMPTS = 60
LEASE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TrancheStatus:
    """A tranche and what became of it: `signed` away by vouchers, `redeemed` by payees on chain so far.

    `reclaimable_at` is when the rest may be taken back.
    """

    tranche: ClientTranche
    signed: Nectar
    redeemed: Nectar
    reclaimable_at: UnixTime


class Funds:
    """Acts for `signer`'s account. Every method may raise ChainError."""

    def __init__(
        self,
        chain: Chain,
        signer: Signer,
        store: Store,
        *,
        leases: TrancheLeases,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        sender = TransactionSender(chain, signer)
        self.account: Address = signer.address
        self.escrow = Escrow(chain, sender)
        self.token = Token(chain, sender)
        self.book = ClientStore(store)
        self._chain = chain
        self._store = store
        self._leases = leases
        self._clock = clock
        self._sleep = sleep

    async def deposit(self, amount: Nectar) -> None:
        """Move tokens from the account into the escrow. Raises InsufficientFunds."""
        available = await self.token.balance_of(self.account)
        if available < amount:
            raise InsufficientFunds("the account does not hold that many tokens", available=available, needed=amount)
        await self.escrow.deposit(amount)

    async def withdraw(self, amount: Nectar | None = None) -> Nectar:
        """Move `amount` (None: everything free) from the escrow to the account; returns how much.

        Raises InsufficientFunds.
        """
        free = await self.free_balance()
        wanted = free if amount is None else amount
        if wanted > free:
            raise InsufficientFunds("that much is not free in the escrow", available=free, needed=wanted)
        if wanted:
            await self.escrow.withdraw_free(wanted)
        return wanted

    async def balance(self) -> Balance:
        tranches = await self.tranches()
        return Balance(
            account=self.account,
            wallet=await self.token.balance_of(self.account),
            free=await self.free_balance(),
            locked=Nectar(sum(t.tranche.total - t.redeemed for t in tranches)),
            signed=Nectar(sum(t.signed for t in tranches)),
            gas=await self._chain.balance(self.account),
        )

    async def free_balance(self) -> Nectar:
        return await self.escrow.free_balance(self.account)

    async def tranches(self) -> list[TrancheStatus]:
        """Tranches opened by this account from this store and not taken back, oldest first."""
        await self._settle_plans()
        found = []
        for tranche in await self._open_tranches():
            try:
                on_chain = await self.escrow.tranche(tranche.tranche_id)
            except TrancheUnknown:
                continue
            signed = await self._store.run(self.book.signed_totals, tranche.tranche_id)
            total = Nectar(sum(signed.values()))
            found.append(TrancheStatus(tranche, total, on_chain.redeemed, UnixTime(on_chain.closes_at + 1)))
        return found

    async def reclaim(self) -> dict[TrancheId, Nectar]:
        """Take back what is left of every tranche whose time is over; returns how much of each."""
        taken: dict[TrancheId, Nectar] = {}
        now = await self._chain.now()
        for status in await self.tranches():
            identifier = status.tranche.tranche_id
            if now < status.reclaimable_at:
                continue
            if (await self.escrow.tranche(identifier)).reclaimed:  # anyone may reclaim for us
                taken[identifier] = Nectar(0)
            else:
                taken[identifier] = await self.escrow.reclaim(identifier)
            await self._store.run(self.book.mark_closed, identifier, now=UnixTime(int(self._clock())))
        return taken

    async def open(self, tree: SumTree, expiry: UnixTime) -> ClientTranche:
        """Open a tranche. It is noted before the transaction is sent, so that a crash in between loses no money.

        Raises StoreError while another process of this account is about to open one and does not get on.
        """
        nonce, planned = await self._next_tranche()
        plan = ClientTranche(planned, self.account, self.account, nonce, tree.leaves, expiry)
        await self._store.run(self.book.record_tranche, plan)
        opened = await self.escrow.open_tranche(tree.root, expiry)
        if opened.id != planned:
            # Another process of this account opened one in between; ours got the next id.
            nonce = await self._nonce_of(opened.id, nonce)
            self._leases.acquire(opened.id)
        tranche = ClientTranche(opened.id, self.account, self.account, nonce, tree.leaves, expiry, ZERO_HASH)
        await self._store.run(self.book.record_tranche, tranche)
        _log.info("opened a tranche", tranche=opened.id, total=tree.root.sum, payees=len(tree.leaves))
        return tranche

    async def _next_tranche(self) -> tuple[int, TrancheId]:
        """The nonce and id of the next tranche, leased to this process. One that another process has planned is its
        own: wait until that is mined."""
        for _attempt in range(LEASE_ATTEMPTS):
            nonce = await self.escrow.tranche_nonce(self.account)
            planned = self._tranche_id(nonce)
            if self._leases.acquire(planned):
                return nonce, planned
            await self._sleep(LEASE_SECONDS)
        raise StoreError(
            "another process of this account is opening a tranche: try again later", reason="the lease is taken"
        )

    def _tranche_id(self, nonce: int) -> TrancheId:
        return tranche_id(self._chain.chain_id, self.escrow.address, self.account, nonce)

    async def _nonce_of(self, identifier: TrancheId, after: int) -> int:
        newest = await self.escrow.tranche_nonce(self.account)
        mine = (nonce for nonce in range(after, newest) if self._tranche_id(nonce) == identifier)
        return next(mine, after)

    async def _settle_plans(self) -> None:
        """Find out what became of tranches this account planned before a crash."""
        now = self._clock()
        for plan in await self._store.run(self.book.tranches, self.account, open_only=True):
            if plan.opened_tx is not None or not self._leases.acquire(plan.tranche_id):
                continue
            try:
                on_chain = await self.escrow.tranche(plan.tranche_id)
                if on_chain.sum_node == SumTree(plan.leaves).root:
                    await self._store.run(self.book.mark_opened, plan.tranche_id, ZERO_HASH)
                    continue
            except TrancheUnknown:
                if plan.expiry > now:
                    continue  # its transaction may still be mined
            await self._store.run(self.book.mark_closed, plan.tranche_id, now=UnixTime(int(now)))

    async def _open_tranches(self) -> list[ClientTranche]:
        known = await self._store.run(self.book.tranches, self.account, open_only=True)
        return [tranche for tranche in known if tranche.opened_tx is not None]
