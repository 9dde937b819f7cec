"""Demands on chain what a node withholds: one row of a session it was paid for, or 5 % of its stake.

A node that opens on chain what it refused to open to us keeps our bond. Refusing could be a trade, so a node that did
it is not challenged again for a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

import structlog

from corolla_core.chain.faults import (
    MAX_CHAIN,
    ChallengeState,
    FaultParameters,
    Opening,
    Punishment,
    Side,
    challenge_id,
)
from corolla_core.protocol.errors import TransactionReverted
from corolla_core.protocol.ids import Address, Hash32, SessionId, TrancheId
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.units import UnixTime, nectar_to_text
from corolla_core.store.challenges import ChallengeBook, ChallengeRecord, Demanded
from corolla_core.store.store import Store
from corolla_validator.ports import Clock, Tell

_log = structlog.get_logger(__name__)

AGAIN_SECONDS = 10.0
"""Between two tries to challenge: a node redeems when it likes, and only then can it be challenged."""
SENT_SECONDS = 600
"""After which a challenge that the chain does not have will not come any more."""
FORGIVEN_SECONDS = 86_400
"""For how long a node that opened on chain what it had withheld is not challenged again."""


class Registrar(Protocol):
    """The contracts, as the challenger uses them. Raises ChainError."""

    @property
    def me(self) -> Address: ...

    async def now(self) -> UnixTime:
        """The chain's own time, by which deadlines pass."""
        ...

    async def parameters(self) -> FaultParameters: ...

    async def redeemed(self, node: Address, receipts: Sequence[Hash32]) -> tuple[TrancheId, Hash32] | None:
        """A tranche whose redeemed head is one of these receipts of the node's, and which one."""
        ...

    async def challenge_opening(
        self, receipt: SignedReceipt, position: int, side: Side, *, tranche: TrancheId, later: Sequence[Receipt]
    ) -> Hash32: ...

    async def expire_opening(self, challenge: Hash32) -> Punishment | None: ...

    async def opening(self, challenge: Hash32) -> Opening: ...


@dataclass(slots=True)
class _Case:
    """A session whose rows were withheld, all receipts of it that we have, and when to try next."""

    chain: tuple[SignedReceipt, ...]
    next_at: float = 0.0


class Challenger:
    """Call `demand` with what was withheld, and `round` now and then. What is under way is in the store before it is
    sent; a session that was not challenged yet is drawn and refused again after a restart."""

    def __init__(self, registrar: Registrar, store: Store, *, clock: Clock, rng: Random, tell: Tell) -> None:
        self._registrar = registrar
        self._store = store
        self._book = ChallengeBook(store)
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self._cases: dict[tuple[Address, SessionId], _Case] = {}

    def demand(self, chain: tuple[SignedReceipt, ...]) -> None:
        """Have a row of this session opened on chain, as soon as the node has redeemed what these receipts say."""
        self._cases[chain[0].signer(), chain[0].receipt.session_id] = _Case(chain)

    async def round(self) -> bool:
        """Challenge what can be, end what is over; whether any challenge is still going on. Raises ChainError,
        StoreError."""
        for (node, session), case in list(self._cases.items()):
            if case.next_at <= self._clock():
                case.next_at = self._clock() + AGAIN_SECONDS
                if await self._challenge(node, session, case):
                    del self._cases[node, session]
        unfinished = await self._store.run(self._book.unfinished)
        for record in unfinished:
            await self._follow(record)
        return len(unfinished) > 0

    async def _challenge(self, node: Address, session: SessionId, case: _Case) -> bool:
        """Whether there is nothing more to try."""
        earlier = await self._store.run(self._book.of_node, node)
        mine = [record for record in earlier if record.session == session]
        if mine:
            return mine[-1].state is not Demanded.SENT
        since = self._clock() - FORGIVEN_SECONDS
        if any(record.state is Demanded.OPENED and record.changed_at > since for record in earlier):
            _log.info("it opens on chain what it refuses: not challenged again today", peer=node, session=session)
            return True
        oldest = self._clock() - (await self._registrar.parameters()).opening_age
        hashes = [signed.receipt.hash() for signed in case.chain]
        found = await self._registrar.redeemed(node, hashes)
        if found is None:
            return case.chain[-1].receipt.t_out / 1000 < oldest
        tranche, head = found
        at = hashes.index(head)
        young = [i for i in range(max(0, at - MAX_CHAIN), at + 1) if case.chain[i].receipt.t_out / 1000 > oldest]
        if not young:
            return True
        chosen = self._rng.choice(young)
        later = [signed.receipt for signed in reversed(case.chain[chosen + 1 : at + 1])]
        return await self._send(node, case.chain[chosen], tranche, later)

    async def _send(self, node: Address, signed: SignedReceipt, tranche: TrancheId, later: Sequence[Receipt]) -> bool:
        receipt = signed.receipt
        position = self._rng.randrange(receipt.pos_start, receipt.pos_start + receipt.n_pos)
        side = self._rng.choice(list(Side))
        challenge = challenge_id(receipt.hash(), position, side)
        record = ChallengeRecord(challenge, node, receipt.session_id, Demanded.SENT, self._now())
        await self._store.run(self._book.record, record)
        try:
            await self._registrar.challenge_opening(signed, position, side, tranche=tranche, later=later)
        except TransactionReverted as error:
            # The head has moved on, the bond is not there, somebody asked for this very row: perhaps the next time.
            _log.info("a challenge was not taken", peer=node, session=receipt.session_id, why=str(error))
            await self._store.run(self._book.forget, challenge)
            return False
        return True

    async def _follow(self, record: ChallengeRecord) -> None:
        opening = await self._registrar.opening(record.challenge)
        match opening.state:
            case ChallengeState.NONE if record.state is Demanded.OPEN:
                await self._end(record, Demanded.LAPSED)  # somebody else ended it
            case ChallengeState.NONE:
                if record.changed_at + SENT_SECONDS < self._clock():
                    await self._store.run(self._book.forget, record.challenge)
            case _ if opening.challenger != self._registrar.me:
                await self._store.run(self._book.forget, record.challenge)  # the same row, asked for by somebody else
            case ChallengeState.OPEN:
                await self._wait(record, opening)
            case ChallengeState.ANSWERED:
                await self._end(record, Demanded.OPENED)
            case ChallengeState.EXPIRED:
                await self._end(record, Demanded.PUNISHED)

    async def _wait(self, record: ChallengeRecord, opening: Opening) -> None:
        if record.state is Demanded.SENT:
            record = replace(record, state=Demanded.OPEN, changed_at=self._now())
            await self._store.run(self._book.record, record)
            self._tell({**_about(record), "event": "challenged", "deadline": opening.deadline})
        if await self._registrar.now() <= opening.deadline:
            return
        try:
            punishment = await self._registrar.expire_opening(record.challenge)
        except TransactionReverted as error:
            # Somebody else ended it, or it was answered in the last second: the next round sees what it is.
            _log.info("a challenge could not be ended", **_about(record), why=str(error))
            return
        if punishment is None:
            await self._end(record, Demanded.LAPSED)
        else:
            taken, reward = nectar_to_text(punishment.taken), nectar_to_text(punishment.reward)
            await self._end(record, Demanded.PUNISHED, taken=taken, reward=reward)

    async def _end(self, record: ChallengeRecord, state: Demanded, **more: str) -> None:
        await self._store.run(self._book.record, replace(record, state=state, changed_at=self._now()))
        self._tell({**_about(record), "event": state.value, **more})

    def _now(self) -> UnixTime:
        return UnixTime(int(self._clock()))


def _about(record: ChallengeRecord) -> dict[str, object]:
    return {"node": record.node, "session": record.session.hex(), "challenge": record.challenge.hex()}
