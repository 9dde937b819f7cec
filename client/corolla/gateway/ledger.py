"""What each request may cost and what it did: reserved before it runs, settled when it is over, however it is over."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from corolla.gateway.keys import key_hash
from corolla.leases import FileLeases
from corolla_core.protocol.errors import StoreError
from corolla_core.protocol.ids import TrancheId
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.gateway_store import ApiKey, GatewayStore
from corolla_core.store.store import Store

BOOKS = Path("gateway", "books.db")
"""Where a gateway's keys and reservations are, under the home folder, unless told otherwise."""

LEASES = Path("gateway", "leases")
"""Where the lock files of running gateways are."""

_log = structlog.get_logger(__name__)


class Bill:
    """What a request reserved, and what it has cost so far. Whoever runs the request states its `cost`."""

    def __init__(self, reserved: Nectar) -> None:
        self.reserved = reserved
        self.cost = Nectar(0)


class Ledger:
    """The keys and budgets of one gateway process.

    What it reserved is released by the next gateway to start here if this one is killed: each holds a lock file, which
    the operating system lets go of when the process dies.
    """

    def __init__(self, store: Store, *, leases: Path, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._books = GatewayStore(store)
        self._clock = clock
        self._leases = leases
        self._own = FileLeases(leases)
        self._owner = TrancheId(secrets.token_bytes(32))

    async def __aenter__(self) -> Ledger:
        """Release what dead gateways had reserved. Raises StoreError."""
        self._own.acquire(self._owner)
        released = await self._store.run(self._release_dead)
        if released:
            _log.warning("released what a gateway that died had reserved", requests=released)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._own.release_all()
        with suppress(StoreError):  # then the lock file stays, and the next gateway here releases
            await self._store.run(self._books.release, [self._owner])
            self._lock_of(self._owner).unlink(missing_ok=True)

    async def authenticate(self, secret: str) -> ApiKey:
        """Whose key this is. Raises KeyRefused, StoreError."""
        return await self._store.run(self._books.find, key_hash(secret), now=self._now())

    @asynccontextmanager
    async def billed(self, key: ApiKey, most: Nectar) -> AsyncIterator[Bill]:
        """A request that can cost `most`; its bill is settled at the end, after an error or a cancellation too.

        Raises BudgetSpent or KeyRefused before anything runs, StoreError.
        """
        reservation = secrets.token_bytes(16)
        bill = Bill(most)
        try:
            # A caller cancelled in the middle of this may have reserved: so it is settled all the same.
            await self._store.run(
                self._books.reserve, reservation, key.key_hash, most, owner=self._owner, now=self._now()
            )
            yield bill
        finally:
            charged = await self._store.run(self._books.settle, reservation, bill.cost)
            if charged < bill.cost:
                _log.warning("a request cost more than its bound", key=key.label, cost=bill.cost, charged=charged)

    def _release_dead(self) -> int:
        dead = FileLeases(self._leases)
        try:
            # Gateways of other machines may share the database; their lock files are not here, so they are let alone.
            here = [TrancheId(owner) for owner in self._books.owners() if self._lock_of(owner).exists()]
            found = [owner for owner in here if owner != self._owner and dead.acquire(owner)]
            released = self._books.release(found)
            for owner in found:
                self._lock_of(owner).unlink(missing_ok=True)
            return released
        finally:
            dead.release_all()

    def _lock_of(self, owner: bytes) -> Path:
        return self._leases / f"{owner.hex()}.lock"

    def _now(self) -> UnixTime:
        return UnixTime(int(self._clock()))
