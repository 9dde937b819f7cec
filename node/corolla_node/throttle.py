"""How much of something a peer, and all peers together, may have in a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MAX_PEERS = 1024


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Throttle:
    """Token buckets of `burst` that fill at `rate` a second: one for each of the last peers, `shared` of it for all."""

    def __init__(self, *, rate: float, burst: float, shared: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._shared = shared
        self._clock = clock
        self._all = _Bucket(burst * shared, clock())
        self._each: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, peer: str, amount: float) -> bool:
        """Whether `peer` may have `amount` more now. What is more than a whole burst takes a full bucket."""
        bucket = self._each.setdefault(peer, _Bucket(self._burst, self._clock()))
        self._each.move_to_end(peer)
        while len(self._each) > _MAX_PEERS:
            self._each.popitem(last=False)
        pairs = ((bucket, 1.0), (self._all, self._shared))
        for each, share in pairs:
            self._fill(each, share)
        if any(each.level < min(amount, self._burst * share) for each, share in pairs):
            return False
        for each, _share in pairs:
            each.level -= amount
        return True

    def _fill(self, bucket: _Bucket, share: float) -> None:
        now = self._clock()
        bucket.level = min(self._burst * share, bucket.level + (now - bucket.at) * self._rate * share)
        bucket.at = now
