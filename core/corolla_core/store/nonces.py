"""The nonces a node accepted sessions under: it never signs a second chain of receipts under one."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from corolla_core.protocol.errors import NonceReused
from corolla_core.protocol.ids import Address, SessionId
from corolla_core.protocol.units import UnixTime
from corolla_core.store.schema import nonces, receipts
from corolla_core.store.store import Store


class NonceLog:
    def __init__(self, store: Store) -> None:
        self._store = store

    def claim(self, nonce: bytes, session: SessionId, client: Address, *, now: UnixTime) -> None:
        """Take a nonce for a session. When this has returned, no later call takes it, whatever died in between.

        Raises NonceReused where it is taken, whoever took it; StoreError.
        """
        row = {"nonce": nonce, "session_id": session, "client": client, "accepted_at": now}

        def work(connection: Connection) -> None:
            if connection.execute(select(nonces.c.nonce).where(nonces.c.nonce == nonce)).first() is not None:
                raise NonceReused("a session was opened with this nonce before", nonce=nonce)
            connection.execute(nonces.insert().values(row))

        self._store.atomically(work)

    def forget(self, *, before: UnixTime) -> int:
        """Drop nonces taken before a time under whose sessions no receipt is kept any more; returns how many."""
        signed = select(receipts.c.hash).where(receipts.c.session_id == nonces.c.session_id).exists()
        with self._store.transaction() as connection:
            return connection.execute(delete(nonces).where(nonces.c.accepted_at < before, ~signed)).rowcount
