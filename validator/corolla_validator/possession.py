"""Asks nodes now and then to show that they hold the weights they serve. What is found steers; it never costs stake.

See `protocol.possession` for what an answer proves, and docs/validator.md for what it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from corolla_core.protocol.errors import CorollaError, PeerMisbehaved, PeerTimeout
from corolla_core.protocol.ids import Address, Hash32, ModelRoot
from corolla_core.protocol.possession import MOST_CHUNKS, Held, Pace, judge_digests
from corolla_core.protocol.units import UnixTime
from corolla_core.store.possessions import PossessionLog, PossessionRecord
from corolla_core.store.store import Store
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.messages import AskPossession, Possession
from corolla_validator.ports import Clock, Lookup, Tell

MIB = 2**20
AGAIN_SECONDS = 60.0
"""After a question without a right answer the next one comes so soon: a few minutes decide whether there is doubt."""
SLACK_SECONDS = 2.0
"""For the round trip, for a turn behind other validators, and for a machine that is busy computing."""
AT_ONCE = 4
"""Nodes asked at the same time: more would have this machine measure itself."""
Chunk = tuple[int, int]


class Weights(Protocol):
    """The validator's own copy of all blocks; `model.chunks.Chunks`."""

    def count(self, block: int) -> int: ...

    def size(self, chunk: Chunk) -> int: ...

    def digests(self, account: Address, salt: Hash32, chunks: Sequence[Chunk]) -> list[Hash32]: ...


class Asked(Protocol):
    """Puts a question to a node."""

    async def possession(
        self, node: Announcement, question: AskPossession, *, seconds: float
    ) -> tuple[Possession, float] | None:
        """The answer, and the seconds from the question to it; None where the node cannot be reached. Raises what it
        refuses with, PeerTimeout after so many `seconds`, or the NetworkError that cut it short."""
        ...


@dataclass(frozen=True, slots=True)
class PossessionPlan:
    """Each node is asked `every` so many seconds, give or take half, for `nbytes` of its weights (all, if it has less;
    at most `MOST_CHUNKS` chunks), due at this `pace`."""

    every: float
    nbytes: int
    pace: Pace


class Possessions:
    """Of one model version. `rng` draws what is asked and when: nobody else may know it beforehand."""

    def __init__(
        self,
        weights: Weights,
        *,
        model_root: ModelRoot,
        num_blocks: int,
        directory: Lookup,
        nodes: Asked,
        store: Store,
        clock: Clock,
        rng: Random,
        tell: Tell,
        plan: PossessionPlan,
    ) -> None:
        self._weights = weights
        self._model_root = model_root
        self._num_blocks = num_blocks
        self._directory = directory
        self._nodes = nodes
        self._store = store
        self._log = PossessionLog(store)
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self._plan = plan
        self._due: dict[Address, float] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def round(self) -> None:
        """Ask who is due. Raises NetworkError when the directory, StoreError when the store, ModelError when this
        validator's own checkpoint fails; what a node does wrong raises nothing."""
        found = await self._directory.lookup(self._model_root, self._num_blocks)
        online = {
            node.account: node for node in found if node.state is NodeState.ONLINE and node.span.end <= self._num_blocks
        }
        self._due = {account: at for account, at in self._due.items() if account in online}
        for account in online.keys() - self._due.keys():
            self._due[account] = await self._first(account)
        now = self._clock()
        due = [online[account] for account, at in sorted(self._due.items()) if at <= now]
        for outcome in await asyncio.gather(*(self._ask(node) for node in due), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _first(self, account: Address) -> float:
        """When a node that was not here before is to be asked: at once, unless it was asked a while ago."""
        last = await self._store.run(lambda: self._log.records(node=account, limit=1))
        return self._next(last[0].asked_at, last[0].outcome) if last else self._clock()

    def _next(self, asked_at: float, outcome: Held | None) -> float:
        every = self._plan.every if outcome is Held.HELD else min(AGAIN_SECONDS, self._plan.every)
        return asked_at + every * self._rng.uniform(0.5, 1.5)

    async def _ask(self, node: Announcement) -> None:
        async with self._turns:
            found = await self._question(node)
        self._due[node.account] = self._next(self._clock(), None if found is None else found.outcome)
        if found is None:
            return
        await self._store.run(self._log.record, found)
        doubt = await self._store.run(self._log.doubt_of, node.account)
        self._tell(possession_event(found, doubted=doubt.doubted))

    async def _question(self, node: Announcement) -> PossessionRecord | None:
        """What came of asking; None where the node is down."""
        chunks = self._draw(node)
        size, salt = sum(self._weights.size(chunk) for chunk in chunks), Hash32(self._rng.randbytes(32))
        deadline = self._plan.pace.deadline(size)
        asked_at, taken, missing, why = self._clock(), None, len(chunks), ""
        try:
            # Twice as long as it has: how late an answer is tells an overloaded machine from one without weights.
            answer = await self._nodes.possession(
                node, AskPossession(self._model_root, salt, chunks), seconds=2 * deadline
            )
        except PeerTimeout as error:
            outcome, why = Held.LATE, str(error)
        except PeerMisbehaved as error:
            outcome, why = Held.WRONG, str(error)
        except CorollaError as error:
            outcome, why = Held.REFUSED, f"{error.code}: {error}"
        else:
            if answer is None:
                return None
            shown, taken = answer
            if taken > deadline:
                outcome = Held.LATE
            else:
                expected = await asyncio.to_thread(self._weights.digests, node.account, salt, chunks)
                missing = judge_digests(expected, shown.digests) if shown.salt == salt else len(chunks)
                outcome = Held.WRONG if missing else Held.HELD
        return PossessionRecord(
            salt=salt,
            node=node.account,
            span=node.span,
            chunks=len(chunks),
            size=size,
            outcome=outcome,
            missing=missing,
            deadline_ms=round(1000 * deadline),
            taken_ms=None if taken is None else round(1000 * taken),
            # It goes into a database and onto a terminal, and the node chose it.
            why="".join(letter if letter.isprintable() else "?" for letter in why),
            asked_at=UnixTime(int(asked_at)),
        )

    def _draw(self, node: Announcement) -> list[Chunk]:
        """Chunks of the node's span, each at most once, in no order, until they are enough."""
        every = [(block, index) for block in node.span.blocks() for index in range(self._weights.count(block))]
        drawn: list[Chunk] = []
        left = self._plan.nbytes
        for chunk in self._rng.sample(every, min(len(every), MOST_CHUNKS)):
            if left <= 0:
                break
            drawn.append(chunk)
            left -= self._weights.size(chunk)
        return drawn


def possession_event(found: PossessionRecord, *, doubted: bool) -> dict[str, object]:
    """What came of a question as an event, and as `validator report` shows it. `tells_below` is the link in MiB/s over
    which nobody could have fetched all that was asked in time."""
    return {
        "event": "possession",
        "node": found.node,
        "span": str(found.span),
        "outcome": found.outcome.value,
        "chunks": found.chunks,
        "missing": found.missing,
        "mib": found.size / MIB,
        "seconds": None if found.taken_ms is None else found.taken_ms / 1000,
        "deadline": found.deadline_ms / 1000,
        "tells_below": found.size / MIB / (found.deadline_ms / 1000),
        "doubted": doubted,
        "why": found.why,
    }
