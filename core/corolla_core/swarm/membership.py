"""Whom a private swarm admits: what the consortium's contract said of an account, a few seconds ago at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from corolla_core.protocol.errors import ChainError, ConfigError
from corolla_core.protocol.ids import Address, ModelRoot
from corolla_core.swarm.announcement import Announcement

_log = structlog.get_logger(__name__)

FRESH_SECONDS = 5.0
"""How long an answer holds: a revocation takes effect within this and the time of a call."""
TRUST_SECONDS = 60.0
"""How long an account stays admitted while the chain cannot be asked; then nobody is."""
WANTED_SECONDS = 600.0
"""How long an account is asked about that nobody wanted to know of."""
PATIENCE_SECONDS = 5.0
"""How long to wait for an answer: a lookup may stand in the way of a repair."""
MOST_AT_ONCE = 128
"""Accounts in one call: announcing costs nothing, and a node may be dialed by anyone."""


class Attesting(Protocol):
    """The part of `Operators` that is asked. Raises ChainError."""

    async def attested(self, accounts: Sequence[Address]) -> list[bool]: ...


class Membership:
    """Never admits whom the contract did not call attested. For one event loop."""

    def __init__(self, operators: Attesting, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._operators = operators
        self._clock = clock
        self._attested_at: dict[Address, float] = {}
        self._asked_at: dict[Address, float] = {}
        self._wanted_at: dict[Address, float] = {}
        self._asking = asyncio.Lock()

    def admitted(self, account: Address) -> bool:
        """What was said last, without asking. False where nothing was, or too long ago."""
        now = self._clock()
        if now - self._attested_at.get(account, float("-inf")) > TRUST_SECONDS:
            return False
        self._wanted_at[account] = now
        return True

    async def among(self, accounts: Collection[Address]) -> set[Address]:
        """Those of `accounts` that are admitted; asks about the ones it does not know of. Where more are new than may
        be asked of at once, the rest is not admitted this time; those that are known come first."""
        async with self._asking:
            now = self._clock()
            due = [a for a in dict.fromkeys(accounts) if now - self._asked_at.get(a, float("-inf")) >= FRESH_SECONDS]
            due.sort(key=lambda account: account not in self._attested_at)
            for account in due[:MOST_AT_ONCE]:
                self._wanted_at[account] = now
            await self._ask(due[:MOST_AT_ONCE])
        return {account for account in accounts if self.admitted(account)}

    async def watch(self) -> None:
        """Keep what is known up to date until cancelled."""
        while True:
            await asyncio.sleep(FRESH_SECONDS)
            await self.refresh()

    async def refresh(self) -> None:
        """Ask again about everybody admitted, and forget who is of no interest."""
        async with self._asking:
            now = self._clock()
            gone = [a for a, at in self._wanted_at.items() if now - at > WANTED_SECONDS or a not in self._attested_at]
            for account in gone:
                for known in (self._wanted_at, self._attested_at, self._asked_at):
                    known.pop(account, None)
            members = list(self._attested_at)
            for start in range(0, len(members), MOST_AT_ONCE):
                await self._ask(members[start : start + MOST_AT_ONCE])

    async def _ask(self, accounts: Sequence[Address]) -> None:
        if not accounts:
            return
        now = self._clock()  # before the answer: it may be of a block as old as that
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answers = await self._operators.attested(accounts)
        except (ChainError, TimeoutError) as error:
            _log.warning("the chain does not say who is attested", error=str(error) or type(error).__name__)
            return
        for account, attested in zip(accounts, answers, strict=True):
            self._asked_at[account] = now
            if attested:
                self._attested_at[account] = now
            elif self._attested_at.pop(account, None) is not None:
                _log.warning("no longer attested", account=account)


@asynccontextmanager
async def member(operators: Attesting, account: Address) -> AsyncIterator[Membership]:
    """Whom the swarm admits, kept up to date. Raises ConfigError unless `account`, our own, is one of them: nobody
    there would hear it."""
    membership = Membership(operators)
    if account not in await membership.among([account]):
        raise ConfigError(f"{account} is not attested in this private swarm: ask its consortium")
    watching = asyncio.create_task(membership.watch(), name="membership")
    try:
        yield membership
    finally:
        watching.cancel()


class Lookup(Protocol):
    """The part of `Directory` that is asked."""

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]: ...


class MembersLookup:
    """A directory without the nodes that are not admitted."""

    def __init__(self, directory: Lookup, membership: Membership) -> None:
        self._directory = directory
        self._membership = membership

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        """Raises NetworkError as the directory does."""
        found = await self._directory.lookup(model_root, num_blocks)
        members = await self._membership.among([announcement.account for announcement in found])
        return [announcement for announcement in found if announcement.account in members]
