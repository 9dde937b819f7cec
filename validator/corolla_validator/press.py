"""A validator's publisher put together: its books, its stake, its account and the chain."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from time import time

from corolla_core.chain.disputes import new_salt
from corolla_core.chain.registry import Registry
from corolla_core.chain.reputation import Reputation
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.ids import Address
from corolla_core.protocol.reputation import ReputationTerms
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import UnixTime
from corolla_core.store.score_store import ScoreStore
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_validator.blocks import ChainBeacons
from corolla_validator.config import ValidatorSettings
from corolla_validator.fees import Fees
from corolla_validator.ports import Clock, Tell
from corolla_validator.publisher import SECONDS_BETWEEN_ROUNDS, Publisher
from corolla_validator.scores import Rated, rate
from corolla_validator.voice import Voice


class Ratings:
    """What the books say of each node, paid as the chain says."""

    def __init__(self, store: Store, fees: Fees, terms: ReputationTerms, *, clock: Clock) -> None:
        self._store = store
        self._audits = ValidatorStore(store)
        self._fees = fees
        self._terms = terms
        self._clock = clock

    async def now(self) -> Mapping[Address, Rated]:
        """Raises ChainError, StoreError."""
        fees = await self._fees.read()
        audits = await self._store.run(self._audits.audits)
        return await asyncio.to_thread(rate, audits, fees, now=UnixTime(int(self._clock())), terms=self._terms)


@dataclass(frozen=True, slots=True)
class Press:
    """`every`: seconds between rounds."""

    publisher: Publisher
    voice: Voice
    ratings: Ratings
    settings: ValidatorSettings
    every: float = SECONDS_BETWEEN_ROUNDS

    @classmethod
    def of(
        cls,
        chain: Chain,
        signer: Signer | None,
        store: Store,
        settings: ValidatorSettings,
        *,
        tell: Tell,
        clock: Clock = time,
    ) -> Press | None:
        """None without an account, and where the network has no oracle."""
        if signer is None or not chain.network.has_reputation:
            return None
        sender = TransactionSender(chain, signer)
        books = ScoreStore(store, oracle=chain.network.reputation, validator=signer.address)
        ratings = Ratings(store, Fees(chain, store), settings.terms, clock=clock)
        voice = Voice(Registry(chain, sender), signer.address)
        publisher = Publisher(
            Reputation(chain, sender),
            signer.address,
            store,
            books,
            rated=ratings.now,
            stake=voice.stake,
            hurry=ChainBeacons(chain).hurry,
            salt=new_salt,
            clock=clock,
            tell=tell,
        )
        return cls(publisher, voice, ratings, settings)

    async def join(self) -> None:
        """Stake for a voice, unless that was done before or is not wanted. Raises ChainError."""
        await self.voice.join(self.settings.voice_amount)

    async def round(self) -> None:
        """Raises ChainError, StoreError."""
        await self.publisher.round()
