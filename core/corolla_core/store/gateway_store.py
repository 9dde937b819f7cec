"""What a gateway must not forget: who may ask, how much each may spend, and what running requests may still cost.

A request's cost is **reserved** before it runs and **settled** after. Always: what a key spent in a period, and what is
reserved in it, together stay within its budget; and a reservation is charged once or not at all, for settling removes
it in the transaction that charges.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, select, update

from corolla_core.protocol.errors import BudgetSpent, InvalidInput, KeyRefused
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.schema import gateway_keys, gateway_reservations
from corolla_core.store.store import Store

DAY_SECONDS = 86_400
_NOTHING = Nectar(0)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One customer of a gateway. `hint` is the beginning of the key, for people to tell keys apart.

    `budget` (None: no limit) is for all time, or where `daily` for each day of UTC. `spent` belongs to the period
    number `spent_period`, and `spent_ever` to all of them. A `private` key's requests never leave the private swarm.
    """

    key_hash: Hash32
    label: str
    hint: str
    budget: Nectar | None
    daily: bool
    private: bool
    created_at: UnixTime
    expires_at: UnixTime | None = None
    revoked_at: UnixTime | None = None
    spent: Nectar = _NOTHING
    spent_period: int = 0
    spent_ever: Nectar = _NOTHING

    def check(self, now: UnixTime) -> None:
        """Raises KeyRefused for a key that is revoked or expired."""
        if (state := self.state(now)) != "active":
            raise KeyRefused(f"this API key is {state}")

    def state(self, now: UnixTime) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"

    def period(self, now: UnixTime) -> int:
        """The number of the period that `now` lies in. A clock that is set back opens no earlier one again."""
        return max(self.spent_period, now // DAY_SECONDS) if self.daily else 0

    def left(self, now: UnixTime, reserved: int) -> Nectar | None:
        """What may still be reserved where `reserved` already is in this period; None without a limit."""
        if self.budget is None:
            return None
        return Nectar(max(0, self.budget - self.spent_in(self.period(now)) - reserved))

    def spent_in(self, period: int) -> Nectar:
        return self.spent if self.spent_period == period else _NOTHING


class GatewayStore:
    """Keys and reservations. Several gateways may share one database: each settles its own reservations (`owner`)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, key: ApiKey) -> None:
        """Raises InvalidInput for a label that another key has, revoked ones included."""

        def work(connection: Connection) -> None:
            taken = select(gateway_keys.c.label).where(gateway_keys.c.label == key.label)
            if connection.execute(taken).first() is not None:
                raise InvalidInput(f"there is a key labelled {key.label!r} already")
            row = {column.name: getattr(key, column.name) for column in gateway_keys.columns}
            connection.execute(gateway_keys.insert().values(row))

        self._store.atomically(work)

    def find(self, key_hash: Hash32, *, now: UnixTime) -> ApiKey:
        """Raises KeyRefused for a key that is unknown, revoked or expired."""
        with self._store.transaction() as connection:
            key = _find(connection, key_hash)
        key.check(now)
        return key

    def listed(self) -> list[tuple[ApiKey, Nectar]]:
        """Every key and what its running requests reserve, the oldest first."""
        with self._store.transaction() as connection:
            rows = connection.execute(select(gateway_keys).order_by(gateway_keys.c.created_at, gateway_keys.c.label))
            keys = [_key(row) for row in rows.all()]
            return [(key, Nectar(sum(_reserved(connection, key.key_hash)))) for key in keys]

    def revoke(self, label: str, *, now: UnixTime) -> None:
        """From now on nothing runs on this key. Again is a no-op. Raises InvalidInput where there is no such key."""
        here = gateway_keys.c.label == label
        with self._store.transaction() as connection:
            if connection.execute(select(gateway_keys.c.label).where(here)).first() is None:
                raise InvalidInput(f"there is no key labelled {label!r}")
            unrevoked = here & gateway_keys.c.revoked_at.is_(None)
            connection.execute(update(gateway_keys).where(unrevoked).values(revoked_at=now))

    def reserve(self, reservation_id: bytes, key_hash: Hash32, amount: Nectar, *, owner: bytes, now: UnixTime) -> None:
        """Set aside the most a request can cost. Raises KeyRefused, or BudgetSpent where less is left; then nothing is
        reserved."""

        def work(connection: Connection) -> None:
            key = _find(connection, key_hash)
            key.check(now)
            period = key.period(now)
            left = key.left(now, sum(_reserved(connection, key_hash, period)))
            if left is not None and amount > left:
                raise BudgetSpent("this API key's budget does not cover the request", available=left, needed=amount)
            row = {
                "reservation_id": reservation_id,
                "key_hash": key_hash,
                "amount": amount,
                "period": period,
                "owner": owner,
            }
            connection.execute(gateway_reservations.insert().values(row))

        self._store.atomically(work)

    def settle(self, reservation_id: bytes, cost: int) -> Nectar:
        """Charge what a request did cost, give the rest back, and return what was charged: at most what was reserved,
        and 0 for a reservation that is settled already.

        What a request cost beyond its reservation was never granted by the key: whoever runs the gateway bears it.
        """
        here = gateway_reservations.c.reservation_id == reservation_id

        def work(connection: Connection) -> Nectar:
            held = connection.execute(select(gateway_reservations).where(here)).first()
            if held is None:
                return Nectar(0)
            key = _find(connection, Hash32(bytes(held.key_hash)))
            # Another process may have settled it while this one waited for the key's row.
            if connection.execute(delete(gateway_reservations).where(here)).rowcount == 0:
                return Nectar(0)
            charge = min(max(0, cost), held.amount)
            change: dict[str, int] = {"spent_ever": key.spent_ever + charge}
            if held.period > key.spent_period:
                change |= {"spent": charge, "spent_period": held.period}
            elif held.period == key.spent_period:
                change |= {"spent": key.spent + charge}
            connection.execute(update(gateway_keys).where(gateway_keys.c.key_hash == key.key_hash).values(change))
            return Nectar(charge)

        return self._store.atomically(work)

    def owners(self) -> set[bytes]:
        """The gateways that have something reserved."""
        with self._store.transaction() as connection:
            rows = connection.execute(select(gateway_reservations.c.owner).distinct()).all()
        return {bytes(row.owner) for row in rows}

    def release(self, owners: Collection[bytes]) -> int:
        """Give back, uncharged, all that gateways which are no more had reserved; returns how many requests' it was."""
        with self._store.transaction() as connection:
            gone = delete(gateway_reservations).where(gateway_reservations.c.owner.in_(list(owners)))
            return connection.execute(gone).rowcount


def _find(connection: Connection, key_hash: Hash32) -> ApiKey:
    row = connection.execute(select(gateway_keys).where(gateway_keys.c.key_hash == key_hash).with_for_update()).first()
    if row is None:
        raise KeyRefused("no such API key")
    return _key(row)


def _reserved(connection: Connection, key_hash: Hash32, period: int | None = None) -> list[int]:
    query = select(gateway_reservations.c.amount).where(gateway_reservations.c.key_hash == key_hash)
    if period is not None:
        query = query.where(gateway_reservations.c.period == period)
    return [row.amount for row in connection.execute(query).all()]


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(
        key_hash=Hash32(bytes(row.key_hash)),
        label=row.label,
        hint=row.hint,
        budget=None if row.budget is None else Nectar(row.budget),
        daily=row.daily,
        private=row.private,
        created_at=UnixTime(row.created_at),
        expires_at=None if row.expires_at is None else UnixTime(row.expires_at),
        revoked_at=None if row.revoked_at is None else UnixTime(row.revoked_at),
        spent=Nectar(row.spent),
        spent_period=row.spent_period,
        spent_ever=Nectar(row.spent_ever),
    )
