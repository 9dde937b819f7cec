"""Publishes a validator's scores: commits to them, reveals them in time, and settles what others revealed as well.

What was said to the chain is asked of the chain every time, and what is said next is in the store before it is sent. So
a process that dies anywhere, a chain that takes a block back and an answer that is lost all come to the same: the next
round sees how far things are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog

from corolla_core.chain.reputation import (
    EpochNow,
    NodeScore,
    OracleParameters,
    Phase,
    Ratings,
    ScoreSheet,
    Seat,
)
from corolla_core.protocol.errors import RpcRefused, TransactionReverted
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.units import Nectar, nectar_to_text
from corolla_core.store.score_store import ScoreStore, SealedScores
from corolla_core.store.store import Store
from corolla_validator.ports import Clock, Tell
from corolla_validator.scores import Rated, publishable

_log = structlog.get_logger(__name__)

SECONDS_BETWEEN_ROUNDS = 5.0
LOOK_AGAIN_SECONDS = 15.0
"""How soon books without anything to publish are looked through again."""
MOST_SETTLED = 16
"""Nodes in one settlement to begin with; fewer where those take more gas than this."""
MOST_GAS = 3_000_000


class Oracle(Protocol):
    """The part of `Reputation` that a publisher uses. Raises ChainError."""

    async def now(self) -> EpochNow: ...
    async def parameters(self) -> OracleParameters: ...
    async def seat(self, validator: Address) -> Seat: ...
    async def commit(self, sheet: ScoreSheet, *, epoch: int) -> int: ...
    async def reveal(self, sheet: ScoreSheet) -> object: ...
    async def scores(self, nodes: Sequence[Address]) -> Mapping[Address, NodeScore | None]: ...
    async def ratings(self, epoch: int, node: Address) -> Ratings: ...
    async def settle_gas(self, epoch: int, nodes: Sequence[Address]) -> int: ...
    async def settle(self, epoch: int, nodes: Sequence[Address]) -> object: ...


class Publisher:
    """Call `round` now and then, twice a phase at the least. One for each account and oracle."""

    def __init__(
        self,
        oracle: Oracle,
        me: Address,
        store: Store,
        books: ScoreStore,
        *,
        rated: Callable[[], Awaitable[Mapping[Address, Rated]]],
        stake: Callable[[], Awaitable[Nectar]],
        hurry: Callable[[], Awaitable[None]],
        salt: Callable[[], Hash32],
        clock: Clock,
        tell: Tell,
    ) -> None:
        """`rated`: what the books say of each node now. `stake`: what this validator has at stake. `hurry`: has a block
        made on a chain that only makes them when asked to, and does nothing elsewhere."""
        self._oracle = oracle
        self._me = me
        self._store = store
        self._books = books
        self._rated = rated
        self._stake = stake
        self._hurry = hurry
        self._salt = salt
        self._clock = clock
        self._tell = tell
        self._idle_until = 0.0
        self._mute = False
        self._strange = 0
        self._settled = 0

    async def round(self) -> None:
        """Do what is due. Raises ChainError, StoreError: then the next round does it."""
        now = await self._oracle.now()
        if self._clock() >= now.until:  # no block since: a devnet stands still unless told to move
            await self._hurry()
            now = await self._oracle.now()
        match now.phase:
            case Phase.COMMIT:
                await self._commit(now.epoch)
            case Phase.REVEAL:
                await self._reveal(now.epoch)
        await self._settle(before=now.epoch)

    async def _commit(self, epoch: int) -> None:
        if self._clock() < self._idle_until or (await self._oracle.seat(self._me)).epoch == epoch:
            return
        sheet = await self._sheet(epoch) if await self._may_speak() else None
        if sheet is None:
            self._idle_until = self._clock() + LOOK_AGAIN_SECONDS
            return
        try:
            await self._oracle.commit(sheet, epoch=epoch)
        except TransactionReverted as error:
            # The phase ended, or a transaction thought lost was mined: the next round sees which.
            _log.info("a commitment was not taken", epoch=epoch, why=str(error))
            return
        self._tell({"event": "scores committed", "epoch": epoch, "nodes": len(sheet.nodes)})

    async def _reveal(self, epoch: int) -> None:
        seat = await self._oracle.seat(self._me)
        if seat.epoch != epoch or seat.revealed:
            return
        sealed = await self._store.run(self._books.sealed, epoch)
        sheet = None if sealed is None else _sheet(sealed)
        if sheet is None or sheet.commitment(epoch, self._me) != seat.commitment:
            if self._strange != epoch:
                self._strange = epoch
                _log.error("the commitment on chain is not one of these books: it cannot be revealed", epoch=epoch)
                self._tell({"event": "scores lost", "epoch": epoch})
            return
        try:
            await self._oracle.reveal(sheet)
        except TransactionReverted as error:
            _log.info("scores were not taken", epoch=epoch, why=str(error))
            return
        scores = dict(zip(sheet.nodes, sheet.scores, strict=True))
        self._tell({"event": "scores revealed", "epoch": epoch, "scores": scores})

    async def _settle(self, *, before: int) -> None:
        """Settle what this validator rated in the last epoch that it did, as far as nobody else has."""
        found = await self._store.run(lambda: self._books.newest_sealed(before=before))
        if found is None or found[0] == self._settled:
            return
        epoch, sealed = found
        rules = await self._oracle.parameters()
        last = await self._oracle.scores(sealed.nodes)
        due = [node for node in sealed.nodes if (known := last[node]) is None or known.epoch < epoch]
        ready = [node for node in due if await self._countable(epoch, node, rules)]
        size = MOST_SETTLED
        while ready:
            size = await self._fitting(epoch, ready[:size])
            batch, ready = ready[:size], ready[size:]
            try:
                await self._oracle.settle(epoch, batch)
            except TransactionReverted as error:
                # Governance asks for more since we looked; what others settled meanwhile would just be passed over.
                _log.info("a settlement was not taken", epoch=epoch, why=str(error))
                return
            self._tell({"event": "scores settled", "epoch": epoch, "nodes": batch})
        self._settled = epoch

    async def _countable(self, epoch: int, node: Address, rules: OracleParameters) -> bool:
        ratings = await self._oracle.ratings(epoch, node)
        return ratings.count >= rules.min_ratings and ratings.stake >= rules.min_total_stake

    async def _fitting(self, epoch: int, nodes: Sequence[Address]) -> int:
        """How many of these, from the first on, go into one transaction."""
        size = len(nodes)
        while size > 1:
            try:
                if await self._oracle.settle_gas(epoch, nodes[:size]) <= MOST_GAS:
                    break
            except TransactionReverted:
                break  # as `settle` will say
            except RpcRefused:
                _log.info("a settlement is more than a block holds", nodes=size)
            size = (size + 1) // 2
        return size

    async def _sheet(self, epoch: int) -> ScoreSheet | None:
        """What is to be said in an epoch, in the store from now on; None for nothing."""
        sealed = await self._store.run(self._books.sealed, epoch)
        if sealed is None:
            scores = publishable(await self._rated(), epoch=epoch, validator=self._me)
            if not scores:
                return None
            sheet = ScoreSheet.of(scores, salt=self._salt())
            fresh = SealedScores(sheet.nodes, sheet.scores, sheet.salt)
            sealed = await self._store.run(self._books.seal, epoch, fresh)
        return _sheet(sealed)

    async def _may_speak(self) -> bool:
        """Whether there is stake behind this validator; says so once when there is not."""
        stake, needed = await self._stake(), (await self._oracle.parameters()).min_validator_stake
        if stake < needed and not self._mute:
            self._tell({"event": "no voice", "stake": nectar_to_text(stake), "needed": nectar_to_text(needed)})
        self._mute = stake < needed
        return not self._mute


def _sheet(sealed: SealedScores) -> ScoreSheet:
    return ScoreSheet(sealed.nodes, sealed.scores, sealed.salt)
