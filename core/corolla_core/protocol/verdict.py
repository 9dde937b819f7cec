"""How a span's claimed output is judged, from statistics others measured (protocol.md section 3). No tensors here.

Limits are whole numbers of 10^-12, so that their hash, the model version's `calibration_root` on chain, is the same on
every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from eth_utils.crypto import keccak

from corolla_core.protocol.eip712 import word
from corolla_core.protocol.errors import InvalidInput, NotCalibrated
from corolla_core.protocol.ids import Hash32, ModelRoot, hash32
from corolla_core.protocol.receipt import NumericClass, WireDtype
from corolla_core.protocol.span import Span

PICO = 10**12
WINDOW = 16
"""Positions in a window: single tokens are noisy, and a mean over the whole text would let a liar hide in it."""
MAX_LIMIT = 10**6 * PICO
WIRES = tuple(wire.value for wire in WireDtype)
_TAG = keccak(text="corolla/calibration/v1")
_ABSENT = 2**256 - 1


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was measured of one claim. Numbers that are not finite are a claim's own fault and fail it.

    `positions` counts those judged (position 0 never is); `w16_max` and `kl` are the largest mean over a window of
    `WINDOW` positions; `alphas` are (cheat's name, α); `mismatch` is a fraction of elements. None: not measured.
    """

    positions: int
    w16_max: float
    alphas: tuple[tuple[str, float], ...] = ()
    mismatch: float | None = None
    kl: float | None = None


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The largest statistics an honest node may have, by test, in units of 10^-12. None: that test says nothing
    about this class. Raises InvalidInput for a limit that no statistic could exceed or every one would."""

    numeric_class: NumericClass
    wire: str
    span: Span
    w16: int
    alpha: int | None = None
    mismatch: int | None = None
    kl: int | None = None

    def __post_init__(self) -> None:
        if self.wire not in WIRES:
            raise InvalidInput(f"{self.wire!r:.40} is no wire dtype; known: {', '.join(WIRES)}")
        for limit in (self.w16, self.alpha, self.mismatch, self.kl):
            if limit is not None and (type(limit) is not int or not 0 < limit <= MAX_LIMIT):
                raise InvalidInput(f"a limit is a whole number of 10^-12, above 0 and at most 10^6: not {limit!r:.40}")
        if self.w16 is None:
            raise InvalidInput("w16 always has a limit")

    @property
    def key(self) -> tuple[str, str, Span]:
        return self.numeric_class.value, self.wire, self.span

    def encode(self) -> bytes:
        """Canonical: eight 32-byte words in declaration order (the span is two); an absent limit is all ones."""
        limits = (self.w16, self.alpha, self.mismatch, self.kl)
        return b"".join(
            [
                keccak(text=self.numeric_class.value),
                keccak(text=self.wire),
                word(self.span.start),
                word(self.span.end),
                *(word(_ABSENT if limit is None else limit) for limit in limits),
            ]
        )


@dataclass(frozen=True, slots=True)
class Calibration:
    """Every threshold of one model version, in the order of their keys. Its `root` goes on chain."""

    model_root: ModelRoot
    entries: tuple[Thresholds, ...]

    def __post_init__(self) -> None:
        hash32(self.model_root)
        keys = [entry.key for entry in self.entries]
        if not keys or keys != sorted(set(keys)):
            raise InvalidInput("a calibration has an entry, each once, in the order of class, wire and span")

    @classmethod
    def of(cls, model_root: ModelRoot, entries: Iterable[Thresholds]) -> Calibration:
        """The same with the entries put in order. Raises InvalidInput when two are for the same thing."""
        return cls(model_root, tuple(sorted(entries, key=lambda entry: entry.key)))

    def root(self) -> Hash32:
        """`keccak(tag ‖ model root ‖ number of entries ‖ entries)`."""
        encoded = b"".join(entry.encode() for entry in self.entries)
        return Hash32(keccak(_TAG + self.model_root + word(len(self.entries)) + encoded))

    def find(self, numeric_class: NumericClass, wire: str, span: Span) -> Thresholds:
        """The thresholds for a node of this class serving `span`.

        A span that was not calibrated takes the loosest of those calibrated that are at least as long, the shortest
        such length first: noise grows with the number of blocks, and an honest node must not pay for our not having
        measured its very cut. Raises NotCalibrated when there is none.
        """
        fitting = [e for e in self.entries if (e.numeric_class, e.wire) == (numeric_class, wire)]
        exact = [entry for entry in fitting if entry.span == span]
        if exact:
            return exact[0]
        longer = [entry for entry in fitting if len(entry.span) >= len(span)]
        if not longer:
            raise NotCalibrated(f"no thresholds for {numeric_class.value} over {wire}, blocks {span}")
        length = min(len(entry.span) for entry in longer)
        return _loosest([entry for entry in longer if len(entry.span) == length], span)


def _loosest(entries: list[Thresholds], span: Span) -> Thresholds:
    """One entry with the largest limit of each test; a test that is absent from any of them is absent."""

    def largest(limits: list[int | None]) -> int | None:
        known = [limit for limit in limits if limit is not None]
        return max(known) if len(known) == len(limits) else None

    first = entries[0]
    return Thresholds(
        first.numeric_class,
        first.wire,
        span,
        max(entry.w16 for entry in entries),
        largest([entry.alpha for entry in entries]),
        largest([entry.mismatch for entry in entries]),
        largest([entry.kl for entry in entries]),
    )


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """Fewer positions than one window: the thresholds say nothing about so few."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One test that failed: `measured` was above `limit` (or was no number)."""

    test: str
    measured: float
    limit: float


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()

    @property
    def failed(self) -> bool:
        return self.outcome is Outcome.FAILED


def judge(statistics: Statistics, thresholds: Thresholds) -> Verdict:
    """Failed when any statistic is above its limit or is not finite, with every such test as a reason.

    A negative α points away from the cheat and is no sign of it. Too few positions to fill a window decide nothing,
    unless the claim held something that is no number.
    """
    measured: list[tuple[str, float, int | None]] = [("w16", statistics.w16_max, thresholds.w16)]
    measured += [(f"alpha {name}", alpha, thresholds.alpha) for name, alpha in statistics.alphas]
    if statistics.mismatch is not None:
        measured.append(("mismatch", statistics.mismatch, thresholds.mismatch))
    if statistics.kl is not None:
        measured.append(("kl", statistics.kl, thresholds.kl))
    broken = [Reason(test, value, _of(limit)) for test, value, limit in measured if not isfinite(value)]
    if broken:
        return Verdict(Outcome.FAILED, tuple(broken))
    if statistics.positions < WINDOW:
        return Verdict(Outcome.UNDECIDED)
    over = tuple(
        Reason(test, value, _of(limit)) for test, value, limit in measured if limit is not None and value * PICO > limit
    )
    return Verdict(Outcome.FAILED if over else Outcome.PASSED, over)


def _of(limit: int | None) -> float:
    return float("inf") if limit is None else limit / PICO
