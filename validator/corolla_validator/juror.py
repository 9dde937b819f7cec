"""A juror's duty: judge what is disputed from the node's own openings, seal the vote, reveal it, move disputes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from corolla_core.chain.disputes import Disputes, Outcome, Phase, Vote, new_salt
from corolla_core.protocol.errors import CorollaError, TransactionReverted
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.store.store import Store
from corolla_core.store.validator_store import SealedVote, ValidatorStore
from corolla_validator.ports import Tell

_log = structlog.get_logger(__name__)

Examine = Callable[[Address, Hash32], Awaitable[Vote]]
"""What this juror says of the receipt with this hash that the node signed: by its own recomputation, never the
accuser's. UNAVAILABLE where it cannot get at the rows."""

PATIENCE = 1.0
"""Seconds that a round waits for a judgement. The next one finds it: other disputes have their deadlines meanwhile."""


class Juror:
    """Call `round` now and then. Everything it must remember is in the store before it is sent."""

    def __init__(self, disputes: Disputes, me: Address, store: Store, *, examine: Examine, tell: Tell) -> None:
        self._disputes = disputes
        self._me = me
        self._store = store
        self._books = ValidatorStore(store)
        self._examine = examine
        self._tell = tell
        self._next = 1
        self._done: set[int] = set()
        self._judging: dict[tuple[int, int], asyncio.Task[Vote]] = {}

    async def round(self) -> bool:
        """Do what is due in every dispute; whether any is still going on. Raises ChainError, StoreError."""
        newest = await self._disputes.count()
        going_on = [dispute for dispute in range(self._next, newest + 1) if dispute not in self._done]
        # All at once: each has its deadlines, and a transaction takes its time.
        ended = await asyncio.gather(*(self._advance(dispute) for dispute in going_on), return_exceptions=True)
        trouble: BaseException | None = None
        for dispute, end in zip(going_on, ended, strict=True):
            if isinstance(end, TransactionReverted):
                # The others move disputes on as well: mostly somebody was faster.
                _log.debug("a dispute moved on without us", dispute=dispute, why=str(end))
            elif isinstance(end, BaseException):
                trouble = end
            elif end:
                self._done.add(dispute)
        if trouble is not None:
            raise trouble
        while self._next in self._done:
            self._done.discard(self._next)
            self._next += 1
        return len(going_on) > 0

    async def _advance(self, dispute: int) -> bool:
        """Whether nothing is left to do in it."""
        found = await self._disputes.dispute(dispute)
        match await self._disputes.phase(dispute):
            case Phase.DRAWING:
                await self._disputes.draw(dispute)
            case Phase.COMMITTING:
                await self._commit(dispute, found.round, found.node, found.receipt_hash)
            case Phase.REVEALING:
                await self._reveal(dispute, found.round)
            case Phase.CONCLUDABLE:
                outcome = await self._disputes.conclude(dispute)
                self._tell(
                    {"event": "verdict", "dispute": dispute, "node": found.node, "outcome": outcome.name.lower()}
                )
            case Phase.CONCLUDED:
                await self._collect(dispute, found.outcome)
                return True
        return False

    async def _commit(self, dispute: int, round_: int, node: Address, receipt: Hash32) -> None:
        ballot = await self._disputes.ballot(dispute, round_, self._me)
        if not ballot.seats or ballot.commitment != bytes(32):
            return
        key = (dispute, round_)
        if key not in self._judging:
            self._judging[key] = asyncio.create_task(self._judge(dispute, node, receipt))
        done, _ = await asyncio.wait({self._judging[key]}, timeout=PATIENCE)
        if not done:
            return
        vote = self._judging.pop(key).result()
        if vote is Vote.UNAVAILABLE and not await self._hurries(dispute, round_):
            return  # the rows may still be had: judge again
        sealed = SealedVote(int(vote), new_salt())
        kept = await self._store.run(self._books.seal_vote, dispute, round_, sealed)
        await self._disputes.commit(dispute, Vote(kept.vote), kept.salt)

    async def _judge(self, dispute: int, node: Address, receipt: Hash32) -> Vote:
        try:
            return await self._examine(node, receipt)
        except CorollaError as error:
            _log.warning("what is disputed cannot be judged", dispute=dispute, peer=node, error=str(error))
            return Vote.UNAVAILABLE

    async def _hurries(self, dispute: int, round_: int) -> bool:
        """Whether more than half of the time to commit is over."""
        until = (await self._disputes.round(dispute, round_)).commit_until
        return await self._disputes.chain.now() >= until - (await self._disputes.parameters()).commit_period // 2

    async def _reveal(self, dispute: int, round_: int) -> None:
        self._judging.pop((dispute, round_), None)
        ballot = await self._disputes.ballot(dispute, round_, self._me)
        if not ballot.seats or ballot.vote is not Vote.NONE:
            return
        kept = await self._store.run(self._books.sealed_vote, dispute, round_)
        if kept is not None:
            await self._disputes.reveal(dispute, Vote(kept.vote), kept.salt)
            self._tell({"event": "vote", "dispute": dispute, "round": round_, "vote": Vote(kept.vote).name.lower()})

    async def _collect(self, dispute: int, outcome: Outcome) -> None:
        if outcome is not Outcome.OPEN:
            await self._disputes.settle(dispute, [self._me])
        if await self._disputes.credit(self._me):
            await self._disputes.withdraw()
