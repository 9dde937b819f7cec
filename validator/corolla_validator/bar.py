"""A validator before the contracts: it accuses, it proves, and it sits on juries; with an account, on networks that
have them."""

from __future__ import annotations

from random import SystemRandom
from time import monotonic, time

from corolla_core.chain.disputes import Disputes, Vote
from corolla_core.chain.faults import Faults, ManifestParts
from corolla_core.chain.models import Models
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import ChainError
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, Hash32
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.verdict import Outcome
from corolla_core.store.store import Store
from corolla_validator.blocks import ChainBeacons
from corolla_validator.challenger import Challenger
from corolla_validator.config import ValidatorSettings
from corolla_validator.juror import Juror
from corolla_validator.payments import Payments
from corolla_validator.ports import Tell
from corolla_validator.prosecutor import Prosecutor
from corolla_validator.published import Published
from corolla_validator.registrar import ChainRegistrar
from corolla_validator.rounds import Rounds

_VOTES = {Outcome.PASSED: Vote.CORRECT, Outcome.FAILED: Vote.FAULTY}


class Bar:
    """`court` is None where nobody can be accused: without an account, nothing is sent to the chain."""

    def __init__(
        self,
        chain: Chain,
        signer: Signer | None,
        store: Store,
        settings: ValidatorSettings,
        manifest: Manifest,
        *,
        tell: Tell,
    ) -> None:
        self.published = Published(Models(chain), manifest, clock=monotonic)
        self._beacons = ChainBeacons(chain)
        self._settings = settings
        self._signer = signer
        self._rounds: Rounds | None = None
        self._disputes: Disputes | None = None
        self._juror: Juror | None = None
        self._challenger: Challenger | None = None
        self.court: Prosecutor | None = None
        if signer is None:
            return
        sender = TransactionSender(chain, signer)
        if chain.network.disputes != ZERO_ADDRESS:
            self._disputes = Disputes(chain, sender)
            self._juror = Juror(self._disputes, signer.address, store, examine=self._vote, tell=tell)
        faults = Faults(chain, sender) if chain.network.faults != ZERO_ADDRESS else None
        payments = Payments(chain)
        if faults is not None:
            registrar = ChainRegistrar(faults, payments)
            self._challenger = Challenger(registrar, store, clock=time, rng=SystemRandom(), tell=tell)
        parts = ManifestParts(manifest.name, manifest.config_root, manifest.front_root, manifest.head_root)
        self.court = Prosecutor(self._disputes, faults, payments, self.published, parts, self._challenger)

    def asks(self, rounds: Rounds) -> None:
        """Whose judgement its votes are."""
        self._rounds = rounds

    async def join(self) -> None:
        """Stake as a juror, unless that was done before or is not wanted. Raises ChainError."""
        if self._disputes is None or self._signer is None or not self._settings.stake_amount:
            return
        pool = await self._disputes.pool()
        if not (await pool.juror(self._signer.address)).joined:
            await pool.join(self._signer.address, self._settings.stake_amount)

    async def round(self) -> None:
        """Do what is due in every dispute and of every challenge. Raises ChainError, StoreError."""
        judging = self._juror is not None and await self._juror.round()
        waiting = self._challenger is not None and await self._challenger.round()
        if judging or waiting:
            await self._beacons.hurry()

    async def _vote(self, node: Address, receipt: Hash32) -> Vote:
        if self._rounds is None:
            raise ChainError("nobody to judge by")
        outcome = await self._rounds.outcome_of(node, receipt)
        return Vote.UNAVAILABLE if outcome is None else _VOTES.get(outcome, Vote.UNAVAILABLE)
