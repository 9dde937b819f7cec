"""Which sessions are due for an audit: pure decisions on what has been seen, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from corolla_core.protocol.beacon import beacon_height, is_audited
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.receipt_chain import ChainKey, Linked


@dataclass(frozen=True, slots=True)
class Seen:
    """A chain as this validator holds it: its head, since which block, and since which time (seconds).

    What was signed by then cannot be changed to suit the beacon, which is the hash of a block still to come.
    """

    head: Hash32
    height: int
    since: float
    drawn: bool = False


class Watchlist:
    """What is known of each chain, and whether its turn has come. `quiet`: seconds without a new receipt after which a
    session counts as over."""

    def __init__(self, *, quiet: float) -> None:
        self._quiet = quiet
        self._seen: dict[ChainKey, Seen] = {}

    def saw(self, linked: Linked, *, height: int, now: float) -> None:
        """A chain as it stands. One that has grown since it was drawn may be drawn again, by a later beacon."""
        known = self._seen.get(linked.key)
        if linked.chain and (known is None or known.head != linked.head):
            self._seen[linked.key] = Seen(linked.head, height, now)

    def forget(self, *, before: float) -> None:
        """Drop chains that have not grown since a time: no audit can ask for their rows any more."""
        self._seen = {key: seen for key, seen in self._seen.items() if seen.since >= before}

    def needs(self) -> int | None:
        """The block whose hash the next draw waits for; None when none is waiting."""
        waiting = [beacon_height(seen.height) for seen in self._seen.values() if not seen.drawn]
        return min(waiting, default=None)

    def due(self, *, height: int, now: float) -> list[tuple[ChainKey, int]]:
        """Chains that have been quiet, with the height of their beacon's block, which is mined."""
        return [
            (key, beacon_height(seen.height))
            for key, seen in sorted(self._seen.items(), key=lambda item: item[1].since)
            if not seen.drawn and now - seen.since >= self._quiet and beacon_height(seen.height) <= height
        ]

    def draw(self, key: ChainKey, beacon: Hash32, probability: Fraction) -> bool:
        """Whether the beacon draws this session. It is asked once."""
        self._seen[key] = replace(self._seen[key], drawn=True)
        return is_audited(beacon, key.session, probability)


def prefix(chain: tuple[SignedReceipt, ...], *, most: int) -> tuple[SignedReceipt, ...]:
    """The beginning of a chain that reaches no position beyond `most`: what one audit recomputes at most."""
    taken = 0
    for signed in chain:
        if signed.receipt.pos_start + signed.receipt.n_pos > most:
            break
        taken += 1
    return chain[:taken]
