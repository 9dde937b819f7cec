"""Answers what the chain asks this node to open: a row it signed for and was paid for, or 5 % of its stake and jail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from corolla_core.chain.demands import Demand
from corolla_core.chain.faults import ChallengeState, Opening, Side
from corolla_core.protocol.errors import ChainError, CorollaError, InvalidInput, InvalidProof
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.merkle import merkle_proof, merkle_root
from corolla_core.protocol.receipt import row_leaf
from corolla_core.protocol.units import UnixTime, nectar_to_text
from corolla_core.store.kept_rows import Place
from corolla_node.archive import Archive, ArchivedRows
from corolla_node.openings import Find

_log = structlog.get_logger(__name__)

MAX_AT_ONCE = 4
"""Rows read, proven and sent at once: a receipt's rows may take tens of megabytes."""


class Docket(Protocol):
    """The chain, as the opener uses it. Raises ChainError; InsufficientFunds where gas cannot be paid."""

    async def news(self) -> list[Demand]:
        """What was demanded of this node since the last call, and perhaps what was before it again."""
        ...

    async def opening(self, challenge: Hash32) -> Opening: ...

    async def now(self) -> UnixTime:
        """The chain's own time, by which deadlines pass."""
        ...

    async def open(self, challenge: Hash32, row: bytes, branch: Sequence[bytes]) -> None:
        """Returns once mined."""
        ...


class Opener:
    """Call `turn` now and then, or `run` it. All it needs to know is on the chain and on the disk, so that it goes on
    where a killed node stopped. `find` looks for the place of a receipt's rows in the store."""

    def __init__(self, docket: Docket, archive: Archive, find: Find, *, interval: float) -> None:
        self._docket = docket
        self._archive = archive
        self._find = find
        self._interval = interval
        self._open: dict[Hash32, Demand] = {}
        self._told: dict[Hash32, str] = {}
        self._missed: set[Hash32] = set()
        self._busy = asyncio.Lock()
        self._few = asyncio.Semaphore(MAX_AT_ONCE)
        self.answered = 0

    @property
    def pending(self) -> int:
        """Challenges that wait for this node's answer."""
        return len(self._open)

    @property
    def missed(self) -> int:
        """Challenges whose deadline passed unanswered."""
        return len(self._missed)

    async def run(self) -> None:
        """Look every `interval` seconds until cancelled; what an outage kept from being answered is answered after."""
        while True:
            try:
                await self.turn()
            except CorollaError as error:
                _log.warning("could not look for challenges now", error=str(error), pending=self.pending)
            except Exception:  # an endpoint's nonsense must not end the node
                _log.exception("looking for challenges failed")
            await asyncio.sleep(self._interval)

    async def turn(self) -> None:
        """Find what is new and answer all that is open; what cannot be answered now is tried again in the next turn.

        Raises ChainError when the chain cannot be asked; an endpoint that refuses logs still gets the answers to what
        is known.
        """
        async with self._busy:
            failure = None
            try:
                for demand in await self._docket.news():
                    self._open.setdefault(demand.challenge, demand)
            except ChainError as error:
                failure = error
            now = await self._docket.now()
            await asyncio.gather(*(self._attend(demand, now) for demand in list(self._open.values())))
            if failure is not None:
                raise failure
            await asyncio.to_thread(self._unpin, {demand.receipt for demand in self._open.values()})

    async def _attend(self, demand: Demand, now: UnixTime) -> None:
        try:
            async with self._few:
                done = await self._answer(demand, now)
        except (CorollaError, OSError) as error:
            if self._told.get(demand.challenge) != str(error):
                self._told[demand.challenge] = str(error)
                _log.error("cannot open a row now", **_about(demand), error=str(error))
            return
        except Exception:  # nor may one challenge keep the others from being answered
            _log.exception("answering a challenge failed", **_about(demand))
            return
        if done:
            del self._open[demand.challenge]
            self._told.pop(demand.challenge, None)

    async def _answer(self, demand: Demand, now: UnixTime) -> bool:
        """Whether nothing is left to do."""
        opening = await self._docket.opening(demand.challenge)
        if opening.state is ChallengeState.NONE:
            # Gone in a reorganisation, or ended unpunished; or an endpoint that lags behind the one that told of it.
            return now > demand.deadline
        if opening.state is not ChallengeState.OPEN:
            return True
        if now > opening.deadline:
            if demand.challenge not in self._missed:
                self._missed.add(demand.challenge)
                _log.error("a challenge was not answered in time: it costs stake, and jail", **_about(demand))
            return True
        if demand.challenge not in self._told:
            self._told[demand.challenge] = ""
            left = opening.deadline - now
            _log.warning("challenged to open a row", **_about(demand), by=demand.challenger, seconds_left=left)
        place = self._archive.recent(demand.receipt) or await self._find(demand.receipt)
        row, branch = await asyncio.to_thread(self._prove, demand, opening, place)
        await self._docket.open(demand.challenge, row, branch)
        self.answered += 1
        _log.info("opened a row on chain", **_about(demand), bond=nectar_to_text(opening.bond))
        return True

    # On a thread

    def _prove(self, demand: Demand, opening: Opening, place: Place | None) -> tuple[bytes, list[Hash32]]:
        """Raises OpeningUnavailable where the rows are not here, and what `prove` does."""
        if place is not None:
            try:
                self._archive.pin(demand.receipt, place)
            except OSError as error:
                _log.warning("challenged rows cannot be put aside", **_about(demand), error=str(error))
        return prove(self._archive.read(demand.receipt, place), demand.side, opening)

    def _unpin(self, needed: set[Hash32]) -> None:
        for receipt in self._archive.pinned() - needed:
            self._archive.unpin(receipt)


def prove(rows: ArchivedRows, side: Side, opening: Opening) -> tuple[bytes, list[Hash32]]:
    """The row that was asked for, with the siblings of its leaf from the leaf up.

    Raises InvalidInput where the receipt has no such position, InvalidProof where these are not the rows under `root`.
    """
    kept = rows.inputs if side is Side.INPUT else rows.outputs
    index = opening.position - rows.pos_start
    if not 0 <= index < len(kept):
        raise InvalidInput(f"no position {opening.position} in this receipt")
    leaves = [row_leaf(rows.session, rows.pos_start + at, row) for at, row in enumerate(kept)]
    if merkle_root(leaves) != opening.root:
        raise InvalidProof("the rows kept here are not those that were signed for")
    return bytes(kept[index]), [sibling for _left, sibling in merkle_proof(leaves, index)]


def _about(demand: Demand) -> dict[str, object]:
    return {
        "challenge": "0x" + demand.challenge.hex(),
        "receipt": "0x" + demand.receipt.hex(),
        "position": demand.position,
        "side": demand.side.name.lower(),
    }
