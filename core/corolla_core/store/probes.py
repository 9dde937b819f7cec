"""What a validator remembers of its probes: the accounts that make them, the money these were given, their sessions."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, func, select, update

from corolla_core.protocol.ids import Address, SessionId
from corolla_core.protocol.receipt import Receipt
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.schema import probe_accounts, probe_sessions, receipts
from corolla_core.store.store import Store

DAY_SECONDS = 86_400
SETTLE_SECONDS = 60
"""How long after it was noted a session is left alone: its receipts must have been read from all its nodes."""
_CHUNK_TOKENS = 8
"""Longer receipts are steps of a prompt, which are chunks of their own; what is generated comes in chunks."""


@dataclass(frozen=True, slots=True)
class ProbeAccount:
    """An account that probes until `ends_at`; what nodes did for it is judged only after that."""

    account: Address
    deposit: Nectar
    funded_at: UnixTime
    ends_at: UnixTime


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of one session: positions of its prompt, and those generated."""

    prompt: int
    generated: int


class ProbeLog:
    """Part of a validator's books."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fund(self, planned: ProbeAccount, *, daily: Nectar) -> bool:
        """Note an account before any money leaves for it; whether a day's money allows it. What was noted counts,
        whatever became of it: a crash costs probes, not money."""

        def work(connection: Connection) -> bool:
            if _given(connection, planned.funded_at) + planned.deposit > daily:
                return False
            connection.execute(
                probe_accounts.insert().values(
                    account=planned.account,
                    deposit=planned.deposit,
                    funded_at=planned.funded_at,
                    ends_at=planned.ends_at,
                )
            )
            return True

        return self._store.atomically(work)

    def given(self, *, at: UnixTime) -> Nectar:
        """How much was noted in the 24 hours before."""
        with self._store.transaction() as connection:
            return _given(connection, at)

    def accounts(self, *, at: UnixTime) -> list[ProbeAccount]:
        """Those that probe at a time, oldest first."""
        query = select(probe_accounts).where(probe_accounts.c.ends_at > at)
        with self._store.transaction() as connection:
            rows = connection.execute(query.order_by(probe_accounts.c.funded_at, probe_accounts.c.account)).all()
        return [
            ProbeAccount(Address(row.account), row.deposit, UnixTime(row.funded_at), UnixTime(row.ends_at))
            for row in rows
        ]

    def end(self, account: Address, *, at: UnixTime) -> None:
        """It probes no more."""
        with self._store.transaction() as connection:
            connection.execute(update(probe_accounts).where(probe_accounts.c.account == account).values(ends_at=at))

    def remember(self, account: Address, sessions: list[SessionId], *, at: UnixTime) -> int:
        """Note an account's sessions; returns how many were new."""

        def work(connection: Connection) -> int:
            known = select(probe_sessions.c.session_id).where(probe_sessions.c.account == account)
            before = {bytes(row.session_id) for row in connection.execute(known)}
            new = [session for session in sessions if bytes(session) not in before]
            for session in new:
                connection.execute(probe_sessions.insert().values(session_id=session, account=account, noted_at=at))
            return len(new)

        return self._store.atomically(work)

    def to_judge(self, *, at: UnixTime) -> list[SessionId]:
        """Sessions not judged yet, and noted a while ago, of accounts that probe no more."""
        query = (
            select(probe_sessions.c.session_id)
            .join(probe_accounts, probe_accounts.c.account == probe_sessions.c.account)
            .where(
                probe_sessions.c.judged_at.is_(None),
                probe_sessions.c.noted_at <= at - SETTLE_SECONDS,
                probe_accounts.c.ends_at <= at,
            )
        )
        with self._store.transaction() as connection:
            rows = connection.execute(query.order_by(probe_sessions.c.session_id)).all()
        return [SessionId(bytes(row.session_id)) for row in rows]

    def judged(self, session: SessionId, *, at: UnixTime) -> None:
        with self._store.transaction() as connection:
            connection.execute(
                update(probe_sessions).where(probe_sessions.c.session_id == session).values(judged_at=at)
            )

    def lengths(self, *, limit: int) -> list[Lengths]:
        """How long the latest sessions of others were, by the receipts the validator has read."""
        own = select(probe_sessions.c.session_id)
        latest = (
            select(receipts.c.session_id, receipts.c.signer, func.max(receipts.c.t_out).label("last"))
            .where(receipts.c.session_id.not_in(own))
            .group_by(receipts.c.session_id, receipts.c.signer)
            .order_by(func.max(receipts.c.t_out).desc())
            .limit(limit * 4)
        )
        found: dict[bytes, Lengths] = {}
        with self._store.transaction() as connection:
            for row in connection.execute(latest).all():
                if bytes(row.session_id) in found or len(found) >= limit:
                    continue
                one = select(receipts.c.body).where(
                    receipts.c.session_id == row.session_id, receipts.c.signer == row.signer
                )
                bodies = connection.execute(one.order_by(receipts.c.pos_start, receipts.c.t_out)).scalars().all()
                found[bytes(row.session_id)] = _lengths([msgspec.msgpack.decode(body, type=Receipt) for body in bodies])
        return [lengths for lengths in found.values() if lengths.prompt and lengths.generated]


def sessions_in(store: Store) -> list[SessionId]:
    """Every session that a client's books have a receipt of."""
    with store.transaction() as connection:
        rows = connection.execute(select(receipts.c.session_id).distinct()).all()
    return [SessionId(bytes(row.session_id)) for row in rows]


def _given(connection: Connection, at: UnixTime) -> Nectar:
    since = probe_accounts.c.funded_at > at - DAY_SECONDS
    return Nectar(sum(connection.execute(select(probe_accounts.c.deposit).where(since)).scalars()))


def _lengths(chain: list[Receipt]) -> Lengths:
    """A step of a prompt is a chunk of its own; shorter ones after the first were generated."""
    prompt = 0
    for number, receipt in enumerate(chain):
        if receipt.pos_start != prompt or (number and receipt.n_pos <= _CHUNK_TOKENS):
            break
        prompt += receipt.n_pos
    end = max((receipt.pos_start + receipt.n_pos for receipt in chain), default=0)
    return Lengths(prompt, end - prompt)
