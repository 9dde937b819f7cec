"""Work ordered to be judged: a client's like any other for all that nodes can see, at times nobody knows beforehand.

What nodes did for an account's probes is judged when the account probes no more: they see what is opened, and would
know the account for a validator's from then on. See docs/validator.md for what a node can tell all the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from corolla_core.protocol.errors import InsufficientFunds, ProcessFailed
from corolla_core.protocol.ids import Address, SessionId
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.probes import DAY_SECONDS, SETTLE_SECONDS, ProbeAccount, ProbeLog
from corolla_core.store.store import Store
from corolla_validator.ports import Clock, Tell
from corolla_validator.probe_client import Answer
from corolla_validator.probe_plan import draw_lengths, draw_prompt, limit_for
from corolla_validator.rounds import TRIES

SEEN = 200
"""Sessions of others, the latest ones, whose lengths probes have."""
MOST_MATERIAL = 2**18
RETRY_SECONDS = 60.0


class Program(Protocol):
    """See `probe_client.ClientProgram`."""

    def new_account(self) -> Address: ...

    async def deposit(self, account: Address, amount: Nectar) -> None: ...

    async def generate(self, account: Address, prompt: str, *, max_tokens: int) -> Answer: ...

    def sessions(self, account: Address) -> list[SessionId]: ...


class Purse(Protocol):
    """See `probe_purse.ChainPurse`."""

    async def holds(self, amount: Nectar) -> bool: ...

    async def give(self, account: Address, amount: Nectar) -> None: ...


class Judges(Protocol):
    async def audit_session(self, session: SessionId) -> list[Address]:
        """Judge what nodes signed in a session, drawn or not; those that were not judged, and may be asked again."""
        ...


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """`per_hour` probes on average, by about `pool` accounts at a time that last for `life` seconds, give or take half.
    Each gets about `deposit`, and all of them no more than `daily` in any 24 hours."""

    per_hour: float
    daily: Nectar
    deposit: Nectar
    pool: int
    life: float


class Material:
    """Text to ask with: what earlier probes were answered, and until there is some, text that comes with Python."""

    def __init__(self, path: Path, *, first: str) -> None:
        self._path = path
        self._first = first

    def texts(self, *, tokens: int) -> Sequence[str]:
        """Those to draw a prompt of so many tokens from. Blocks."""
        try:
            kept = self._path.read_text(errors="replace")[-MOST_MATERIAL:]
        except FileNotFoundError:
            kept = ""
        return [kept] if len(kept.split()) > 4 * tokens else [self._first]

    def add(self, text: str) -> None:
        """Blocks."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path.open("a") as file:
            file.write(text.strip() + "\n")


class Probes:
    """Of one model. One probe at a time. `count` counts the tokens of a prompt as a client will have them."""

    def __init__(
        self,
        program: Program,
        purse: Purse,
        judges: Judges,
        *,
        store: Store,
        material: Material,
        count: Callable[[str], int],
        clock: Clock,
        rng: Random,
        tell: Tell,
        plan: ProbePlan,
    ) -> None:
        self._program = program
        self._purse = purse
        self._judges = judges
        self._store = store
        self._log = ProbeLog(store)
        self._material = material
        self._count = count
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self._plan = plan
        self._next = self._clock() + self._pause()
        self._tries: Counter[SessionId] = Counter()
        self._judge_at = self._clock() + SETTLE_SECONDS  # until then it may not have read what it missed

    async def load(self) -> None:
        """Take up sessions that an earlier run did not live to note. Raises StoreError."""
        yesterday = UnixTime(int(self._clock()) - DAY_SECONDS)
        for each in await self._store.run(lambda: self._log.accounts(at=yesterday)):
            await self._remember(each.account)

    async def round(self) -> None:
        """Make the probe that is due, and judge what is over. A probe that fails raises nothing. Raises ChainError,
        StoreError, or ProcessFailed where a new account cannot deposit."""
        if self._clock() >= self._judge_at:
            await self._judge()
        if self._clock() < self._next:
            return
        self._next = max(self._clock(), self._next + self._pause())
        account = await self._account()
        if account is not None:
            await self._probe(account)

    def _pause(self) -> float:
        """Seconds to the next one: independent arrivals, as those of many clients are."""
        return self._rng.expovariate(self._plan.per_hour / 3600)

    async def _account(self) -> Address | None:
        """Who makes the next probe; None where a day's money does not allow another account."""
        now = UnixTime(int(self._clock()))
        known = [each.account for each in await self._store.run(lambda: self._log.accounts(at=now))]
        if self._rng.randrange(self._plan.pool) < len(known):
            return self._rng.choice(known)
        made = await self._new_account(now)
        return made or (self._rng.choice(known) if known else None)

    async def _new_account(self, now: UnixTime) -> Address | None:
        # Sums differ, so that they do not tell which accounts belong together.
        deposit = Nectar(self._plan.deposit * self._rng.randint(50, 150) // 100)
        given = await self._store.run(lambda: self._log.given(at=now))
        if given + deposit > self._plan.daily or not await self._purse.holds(deposit):
            why = "no money left for today" if given + deposit > self._plan.daily else "the purse is empty"
            self._tell({"event": "probe", "outcome": why})
            return None
        account = await asyncio.to_thread(self._program.new_account)
        ends_at = UnixTime(now + int(self._plan.life * self._rng.uniform(0.5, 1.5)))
        planned = ProbeAccount(account, deposit, now, ends_at)
        if not await self._store.run(lambda: self._log.fund(planned, daily=self._plan.daily)):
            return None  # another process with these books was quicker
        try:
            await self._purse.give(account, deposit)
            await self._program.deposit(account, deposit)
        except BaseException:
            await self._store.run(lambda: self._log.end(account, at=now))
            raise
        return account

    async def _probe(self, account: Address) -> None:
        lengths = draw_lengths(await self._store.run(lambda: self._log.lengths(limit=SEEN)), self._rng)
        prompt = await asyncio.to_thread(self._prompt, lengths.prompt)
        try:
            answer = await self._program.generate(account, prompt, max_tokens=limit_for(lengths.generated))
        except ProcessFailed as error:
            spent = InsufficientFunds.__name__ in str(error)
            if spent:
                await self._store.run(lambda: self._log.end(account, at=UnixTime(int(self._clock()))))
            outcome = "has spent its deposit" if spent else "failed"
            self._tell({"event": "probe", "account": account, "outcome": outcome, "why": str(error)})
        else:
            await asyncio.to_thread(self._material.add, answer.text)
            self._tell(
                {
                    "event": "probe",
                    "account": account,
                    "outcome": "answered",
                    "prompt_tokens": answer.prompt_tokens,
                    "tokens": answer.tokens,
                    "cost": str(answer.cost),
                    "nodes": list(answer.nodes),
                }
            )
        await self._remember(account)

    async def _remember(self, account: Address) -> None:
        sessions = await asyncio.to_thread(self._program.sessions, account)
        now = UnixTime(int(self._clock()))
        await self._store.run(lambda: self._log.remember(account, sessions, at=now))

    def _prompt(self, tokens: int) -> str:
        return draw_prompt(self._material.texts(tokens=tokens), tokens, self._rng, count=self._count)

    async def _judge(self) -> None:
        now = UnixTime(int(self._clock()))
        for session in await self._store.run(lambda: self._log.to_judge(at=now)):
            self._tries[session] += 1
            left = await self._judges.audit_session(session)
            if left and self._tries[session] < TRIES:
                self._judge_at = now + RETRY_SECONDS
                continue
            for node in left:
                self._tell({"event": "withheld", "node": node, "session": session.hex(), "why": "a probe's rows"})
            del self._tries[session]
            await self._store.run(self._log.judged, session, at=now)
