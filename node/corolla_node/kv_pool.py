"""The node's budget of session memory, in bytes: admission control instead of running out in mid-session."""

from __future__ import annotations

from corolla_core.protocol.errors import InvalidInput, OutOfCapacity


class Lease:
    """Bytes taken from a pool. Giving it back twice gives it back once."""

    __slots__ = ("_pool", "size")

    def __init__(self, pool: KvPool, size: int) -> None:
        self._pool: KvPool | None = pool
        self.size = size

    def release(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.used -= self.size


class KvPool:
    """`total` bytes shared by every session. Used from the event loop only."""

    def __init__(self, total: int) -> None:
        if total <= 0:
            raise InvalidInput("the KV budget must be positive")
        self.total = total
        self.used = 0

    @property
    def free(self) -> int:
        return self.total - self.used

    def reserve(self, size: int) -> Lease:
        """A lease of `size` bytes. Raises OutOfCapacity(needed, free)."""
        if size < 0:
            raise InvalidInput("a lease is not negative")
        if size > self.free:
            raise OutOfCapacity("not enough session memory", needed=size, free=self.free)
        self.used += size
        return Lease(self, size)
