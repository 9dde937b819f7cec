"""How much is measured: a quarter of an hour's worth, or all there is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """`rounds`: turns of everybody in a comparison. `sessions`: how many at once, and `contexts`: how long a session is
    when a node is killed. `hops`: lengths of chains. `latencies`: round trip milliseconds of a WAN."""

    rounds: int
    sessions: tuple[int, ...]
    contexts: tuple[int, ...]
    hops: tuple[int, ...]
    latencies: tuple[int, ...]


QUICK = Effort(rounds=3, sessions=(1, 4, 16), contexts=(128,), hops=(1, 2, 4, 8), latencies=(50,))
FULL = Effort(
    rounds=7, sessions=(1, 2, 4, 8, 16, 32, 64), contexts=(128, 1000), hops=(1, 2, 4, 8), latencies=(10, 50, 100)
)
