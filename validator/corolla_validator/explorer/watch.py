"""Looks at everything for everybody who looks at the explorer, and says what has changed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.ids import Address
from corolla_core.swarm.announcement import Announcement
from corolla_validator.explorer import view
from corolla_validator.explorer.books import Shelf
from corolla_validator.explorer.ledger import Ledger
from corolla_validator.explorer.models import Coverage, Health, Overview, View
from corolla_validator.explorer.overview import About, overview
from corolla_validator.explorer.pulse import AsksInfo, Pulses
from corolla_validator.explorer.sightings import sighted
from corolla_validator.ports import Clock

_log = structlog.get_logger(__name__)

SHOW_EVERY = 0.5
LOOKUP_EVERY = 5.0
CHAIN_EVERY = 1.5
BOOKS_EVERY = 2.0
LISTS = ("nodes", "sessions", "audits", "disputes", "penalties", "challenges", "earnings")


@dataclass(frozen=True, slots=True)
class ChainSight:
    """`head` is the last block that is in the ledger."""

    ledger: Ledger
    head: int
    min_stake: int


class Sources(Protocol):
    """Where it all comes from. Each raises CorollaError when it is out of reach."""

    async def announced(self) -> list[Announcement]:
        """Those that said goodbye are among them."""
        ...

    async def chain(self) -> ChainSight: ...

    async def shelf(self) -> Shelf: ...


@dataclass(frozen=True, slots=True)
class Versions:
    """Which state of everything is shown. `run` is another one whenever the explorer starts."""

    run: str
    topics: Mapping[str, int]


class Watch:
    """One for all who look. Before the first look all is empty, and no source is fresh."""

    def __init__(
        self, about: About, sources: Sources, nodes: AsksInfo, *, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        self._about = about
        self._sources = sources
        self._clock = clock
        self._monotonic = monotonic
        self._pulses = Pulses(nodes, clock=monotonic)
        self._sightings: dict[Address, Announcement] = {}
        self._chain = ChainSight(Ledger(), -1, 0)
        self._shelf = Shelf()
        self._health = {name: Health(name=name, fresh=False, why="not asked yet") for name in ("DHT", "chain", "books")}
        self._news = asyncio.Event()
        self.running = False
        self.lists: dict[str, tuple[View, ...]] = dict.fromkeys(LISTS, ())
        self.coverage: Coverage = view.coverage(about.num_blocks, ())
        self.overview: Overview = self._overview()
        self.versions = Versions(secrets.token_hex(8), dict.fromkeys((*LISTS, "coverage", "overview"), 0))

    @property
    def sightings(self) -> Mapping[Address, Announcement]:
        """The last that each node announced."""
        return self._sightings

    @property
    def news(self) -> asyncio.Event:
        """Set at the next change. Take it before looking at `versions`."""
        return self._news

    async def run(self) -> None:
        """Until cancelled."""
        self.running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pulses.run(self._worth_asking))
                group.create_task(self._often(LOOKUP_EVERY, "DHT", self._look_up))
                group.create_task(self._often(CHAIN_EVERY, "chain", self._read_chain))
                group.create_task(self._often(BOOKS_EVERY, "books", self._read_books))
                while True:
                    self.show()
                    await asyncio.sleep(SHOW_EVERY)
        finally:
            self.running = False

    def show(self) -> None:
        """Make what is known what is shown."""
        sight = view.Sight(
            now=int(self._clock() * 1000),
            tick=self._monotonic(),
            ledger=self._chain.ledger,
            sightings=self._sightings,
            beats=self._pulses.beats,
            shelf=self._shelf,
            min_stake=self._chain.min_stake,
        )
        nodes = view.node_views(sight)
        self._put("nodes", nodes)
        covered = view.coverage(self._about.num_blocks, nodes)
        changed = set()
        if covered != self.coverage:
            self.coverage = covered
            changed.add("coverage")
        seen = self._overview()
        if seen != self.overview:
            self.overview = seen
            changed.add("overview")
        self._tell(changed)

    async def _look_up(self) -> None:
        found = await self._sources.announced()
        self._sightings = sighted(self._sightings, found, now_ms=int(self._clock() * 1000))

    async def _read_chain(self) -> None:
        self._chain = await self._sources.chain()
        ledger = self._chain.ledger
        self._put("disputes", view.dispute_views(ledger))
        self._put("penalties", view.penalty_views(ledger))
        self._put("challenges", view.challenge_views(ledger))
        self._put("earnings", view.earning_views(ledger))

    async def _read_books(self) -> None:
        before, self._shelf = self._shelf, await self._sources.shelf()
        if self._shelf.audits is not before.audits:
            self._put("audits", view.audit_views(self._shelf))
            self._put("sessions", view.session_views(self._shelf))

    def _worth_asking(self) -> list[Announcement]:
        now = int(self._clock() * 1000)
        return [one for one in self._sightings.values() if now < one.expires_at]

    async def _often(self, seconds: float, name: str, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await look()
                self._health[name] = Health(name=name, fresh=True)
            except CorollaError as error:
                # Its text may name the endpoint, and with it a key: only its code is for everybody.
                _log.warning("a source is out of reach", source=name, error=str(error))
                self._health[name] = Health(name=name, fresh=False, why=error.code)
            await asyncio.sleep(seconds)

    def _overview(self) -> Overview:
        return overview(
            self._about,
            head=self._chain.head,
            nodes=self.lists["nodes"],  # type: ignore[arg-type]
            covered=self.coverage,
            ledger=self._chain.ledger,
            shelf=self._shelf,
            health=tuple(self._health.values()),
        )

    def _put(self, topic: str, rows: tuple[View, ...]) -> None:
        if rows != self.lists[topic]:
            self.lists[topic] = rows
            self._tell({topic})

    def _tell(self, changed: set[str]) -> None:
        if changed:
            topics = {topic: count + (topic in changed) for topic, count in self.versions.topics.items()}
            self.versions = Versions(self.versions.run, topics)
            self._news.set()
            self._news = asyncio.Event()
