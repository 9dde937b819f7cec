"""How fast nodes are: what this client saw, and until it saw anything, what they announce within reason.

A client sees how long a step took through the whole chain, never one node's share. So what each node is believed to
take is a mean with a variance, and a step corrects them all, by as much as each is uncertain: the Kalman filter whose
state is seconds a block, without the covariances. A node of which much was seen is hardly blamed for another's delay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from corolla_core.protocol.ids import Address
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.plausible import announced_rate, most_believed

#: What was seen of a node is forgotten when it is this old, in seconds: load and machines change. So who exaggerates is
#: believed by each client once in this time.
MEMORY_SECONDS = 3600.0
#: How much one step's time varies, as a share of what is expected: queues and networks.
_NOISE = 0.3
_UNKNOWN = 0.05


@dataclass(slots=True)
class _Belief:
    mean: float
    variance: float
    since: float


class Paces:
    """Seconds a block of each node."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._typical = _UNKNOWN
        self._most = float("inf")
        self._announced: dict[Address, int] = {}
        self._seen: dict[Address, _Belief] = {}

    def announced(self, swarm: Iterable[Announcement]) -> None:
        """What the swarm announces now."""
        swarm = list(swarm)
        self._most = most_believed(swarm)
        self._announced = {a.account: announced_rate(a) for a in swarm}
        self._typical = median(map(self._prior, self._announced)) if swarm else _UNKNOWN
        now = self._clock()
        self._seen = {account: b for account, b in self._seen.items() if now - b.since < MEMORY_SECONDS}

    def of(self, account: Address) -> float:
        """Seconds a block: as seen, else as announced, but not faster than anybody is believed to be."""
        belief = self._seen.get(account)
        return self._prior(account) if belief is None else belief.mean

    def took(self, parts: Sequence[tuple[Address, int]], seconds: float) -> None:
        """One token went through so many blocks of each of these nodes in `seconds`, the way to them not counted."""
        beliefs = [self._belief(account) for account, _blocks in parts]
        lengths = [blocks for _account, blocks in parts]
        expected = sum(b.mean * n for b, n in zip(beliefs, lengths, strict=True))
        surprise = seconds - expected
        spread = sum(b.variance * n * n for b, n in zip(beliefs, lengths, strict=True)) + (_NOISE * expected) ** 2
        for belief, blocks in zip(beliefs, lengths, strict=True):
            gain = belief.variance * blocks / spread
            belief.mean = max(belief.mean + gain * surprise, belief.mean / 2)
            belief.variance *= 1 - gain * blocks

    def _belief(self, account: Address) -> _Belief:
        if account not in self._seen:
            # As uncertain for all: who claims to be fast must not be blamed less for it.
            self._seen[account] = _Belief(self._prior(account), self._typical**2, self._clock())
        return self._seen[account]

    def _prior(self, account: Address) -> float:
        rate = min(self._announced.get(account, 0), self._most)
        return 1000.0 / rate if rate > 0 else _UNKNOWN
