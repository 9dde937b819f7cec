"""A validator's books, read for show."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from corolla_core.protocol.ids import Address
from corolla_core.protocol.possession import Doubt, Held
from corolla_core.protocol.reputation import ReputationTerms
from corolla_core.protocol.suspicion import Suspicion
from corolla_core.protocol.units import UnixTime
from corolla_core.store.fee_store import FeeStore
from corolla_core.store.possessions import PossessionLog, PossessionRecord
from corolla_core.store.store import Store
from corolla_core.store.validator_store import AuditRecord, ValidatorStore
from corolla_validator.ports import Clock
from corolla_validator.scores import Rated, rate

_POSSESSIONS = 1000


@dataclass(frozen=True, slots=True)
class Shelf:
    """All audits in the order they were made; what they say of each node; and what each last showed of its weights,
    with whether that leaves it in doubt."""

    audits: tuple[AuditRecord, ...] = ()
    suspicions: Mapping[Address, Suspicion] = field(default_factory=dict)
    rated: Mapping[Address, Rated] = field(default_factory=dict)
    weights: Mapping[Address, tuple[Held, bool]] = field(default_factory=dict)


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
        before = self._shelf
        if count == len(before.audits):
            self._shelf = Shelf(before.audits, before.suspicions, before.rated, weights)
            return self._shelf
        audits = tuple(await self._store.run(self._audits.audits))
        fees = await self._store.run(self._fees.session_fees)
        now = UnixTime(int(self._clock()))
        rated = await asyncio.to_thread(rate, audits, fees, now=now, terms=self._terms)
        self._shelf = Shelf(audits, suspicions_of(audits), rated, weights)
        return self._shelf


def suspicions_of(audits: tuple[AuditRecord, ...]) -> dict[Address, Suspicion]:
    found: dict[Address, Suspicion] = {}
    for record in audits:
        found[record.node] = found.get(record.node, Suspicion()).after(record.verdict, record.input_digest)
    return found


def weights_of(records: list[PossessionRecord]) -> dict[Address, tuple[Held, bool]]:
    doubts: dict[Address, Doubt] = {}
    found: dict[Address, tuple[Held, bool]] = {}
    for record in records:
        doubt = doubts[record.node] = doubts.get(record.node, Doubt()).after(record.outcome)
        found[record.node] = record.outcome, doubt.doubted
    return found
