"""The node's budget of session memory, in bytes: admission control instead of running out in mid-session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from corolla_core.protocol.errors import InvalidInput, OutOfCapacity
from corolla_core.protocol.ids import Address


@dataclass(frozen=True, slots=True)
class Share:
    """The most that one holder may have of a pool."""

    size: int
    leases: int


class Lease:
    """Bytes taken from a pool. Giving it back twice gives it back once."""

    __slots__ = ("_holders", "_pool", "size")

    def __init__(self, pool: KvPool, size: int, holders: Collection[Address]) -> None:
        self._pool: KvPool | None = pool
        self._holders = holders
        self.size = size

    def release(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.give_back(self.size, self._holders)


class KvPool:
    """`total` bytes shared by every session. Used from the event loop only."""

    def __init__(self, total: int, *, spare: Callable[[int], None] = lambda _free: None) -> None:
        """`spare` is told how much is free, at first and when that changes: what lies there meanwhile has to go."""
        if total <= 0:
            raise InvalidInput("the KV budget must be positive")
        self.total = total
        self.used = 0
        self._held: Counter[Address] = Counter()
        self._leases: Counter[Address] = Counter()
        self._spare = spare
        spare(self.free)

    @property
    def free(self) -> int:
        return self.total - self.used

    def reserve(self, size: int, *, holders: Collection[Address] = (), share: Share | None = None) -> Lease:
        """A lease of `size` bytes, counted whole against the `share` of each holder.

        Raises OutOfCapacity(needed, free); `free` is what the holders may still have.
        """
        if size < 0:
            raise InvalidInput("a lease is not negative")
        if size > self.free:
            raise OutOfCapacity("not enough session memory", needed=size, free=self.free)
        holders = frozenset(holders)
        if share is not None:
            for holder in holders:
                self._check_share(holder, size, share)
        self.used += size
        self._spare(self.free)
        for holder in holders:
            self._held[holder] += size
            self._leases[holder] += 1
        return Lease(self, size, holders)

    def give_back(self, size: int, holders: Collection[Address]) -> None:
        """For `Lease`: what its holders had is free again."""
        self.used -= size
        self._spare(self.free)
        for holder in holders:
            self._held[holder] -= size
            self._leases[holder] -= 1
            if not self._leases[holder]:
                del self._leases[holder], self._held[holder]

    def _check_share(self, holder: Address, size: int, share: Share) -> None:
        if self._leases[holder] >= share.leases:
            raise OutOfCapacity(f"{share.leases} sessions are one client's share", needed=1, free=0)
        free = max(0, share.size - self._held[holder])
        if size > free:
            raise OutOfCapacity("more session memory than one client's share", needed=size, free=free)
