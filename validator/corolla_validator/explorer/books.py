"""A validator's books, read for show."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from corolla_core.protocol.ids import Address
from corolla_core.protocol.possession import Doubt, Held
from corolla_core.protocol.reputation import ReputationTerms
from corolla_core.protocol.suspicion import Suspicion
from corolla_core.protocol.units import UnixTime
from corolla_core.protocol.verdict import Outcome
from corolla_core.store.fee_store import FeeStore
from corolla_core.store.possessions import PossessionLog, PossessionRecord
from corolla_core.store.store import Store
from corolla_core.store.validator_store import AuditRecord, ValidatorStore
from corolla_validator.ports import Clock
from corolla_validator.scores import Rated, rate

_POSSESSIONS = 1000


@dataclass(frozen=True, slots=True)
class Shelf:
    """All audits in the order they were made; how many sessions they are of; what they say of each node; and what each
    last showed of its weights, with whether that leaves it in doubt. Make one with `shelf_of`."""

    audits: tuple[AuditRecord, ...] = ()
    sessions: int = 0
    tallies: Mapping[Address, Mapping[Outcome, int]] = field(default_factory=dict)
    last: Mapping[Address, AuditRecord] = field(default_factory=dict)
    suspicions: Mapping[Address, Suspicion] = field(default_factory=dict)
    rated: Mapping[Address, Rated] = field(default_factory=dict)
    weights: Mapping[Address, tuple[Held, bool]] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(tally.get(Outcome.FAILED, 0) for tally in self.tallies.values())


def shelf_of(audits: Sequence[AuditRecord], rated: Mapping[Address, Rated]) -> Shelf:
    suspicions: dict[Address, Suspicion] = {}
    tallies: dict[Address, dict[Outcome, int]] = {}
    for record in audits:
        node, outcome = record.node, record.verdict.outcome
        suspicions[node] = suspicions.get(node, Suspicion()).after(record.verdict, record.input_digest)
        tally = tallies.setdefault(node, {})
        tally[outcome] = tally.get(outcome, 0) + 1
    return Shelf(
        audits=tuple(audits),
        sessions=len({record.session for record in audits}),
        tallies=tallies,
        last={record.node: record for record in audits},
        suspicions=suspicions,
        rated=rated,
    )


class Books:
    """Reads all of it when there are new audits, else only what nodes showed of their weights."""

    def __init__(self, store: Store, terms: ReputationTerms, *, clock: Clock) -> None:
        self._store = store
        self._audits = ValidatorStore(store)
        self._fees = FeeStore(store)
        self._possessions = PossessionLog(store)
        self._terms = terms
        self._clock = clock
        self._shelf = Shelf()

    async def read(self) -> Shelf:
        """Raises StoreError."""
        count = await self._store.run(self._audits.audit_count)
        weights = weights_of(await self._store.run(lambda: self._possessions.records(limit=_POSSESSIONS)))
        if count != len(self._shelf.audits):
            audits = await self._store.run(self._audits.audits)
            fees = await self._store.run(self._fees.session_fees)
            now = UnixTime(int(self._clock()))
            rated = await asyncio.to_thread(rate, audits, fees, now=now, terms=self._terms)
            self._shelf = await asyncio.to_thread(shelf_of, audits, rated)
        if weights != self._shelf.weights:
            self._shelf = replace(self._shelf, weights=weights)
        return self._shelf


def weights_of(records: list[PossessionRecord]) -> dict[Address, tuple[Held, bool]]:
    doubts: dict[Address, Doubt] = {}
    found: dict[Address, tuple[Held, bool]] = {}
    for record in records:
        doubt = doubts[record.node] = doubts.get(record.node, Doubt()).after(record.outcome)
        found[record.node] = record.outcome, doubt.doubted
    return found
