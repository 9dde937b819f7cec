"""Who is to be replaced when something goes wrong: a pure decision on what was reported, and by whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from corolla.account import NOTHING
from corolla_core.protocol.errors import (
    CorollaError,
    LinkBroken,
    PeerMisbehaved,
    PeerUnreachable,
    PositionMismatch,
    TensorRejected,
    VoucherStale,
    VoucherTooSmall,
)
from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import Nectar

#: How often a node may ask for the same thing again before it counts as misbehaving.
MAX_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Replace:
    """`account` is out, because of `error`."""

    account: Address
    error: CorollaError


@dataclass(frozen=True, slots=True)
class PayUp:
    """`account` rightly waits for a voucher (again)."""

    account: Address


@dataclass(frozen=True, slots=True)
class SendAgain:
    """The node dropped a step; the next attempt may find it ready."""

    account: Address


@dataclass(frozen=True, slots=True)
class Ignore:
    """Nothing new."""


Verdict = Replace | PayUp | SendAgain | Ignore


@dataclass(frozen=True, slots=True)
class Report:
    """What `reporter` said. `repeats` counts its earlier complaints of this kind in this session; `ordered` and
    `signed` are the totals on its account."""

    reporter: Address
    error: CorollaError
    repeats: int = 0
    ordered: Nectar = NOTHING
    signed: Nectar = NOTHING


class Complaints:
    """What nodes complained of since a step was last answered."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Address, type[CorollaError], str | None]] = Counter()

    def count(self, reporter: Address, error: CorollaError) -> int:
        """How often `reporter` said this before.

        A report about another peer is another complaint: who loses two neighbours in a row need not be lying. Who
        complains of a third one without a step in between is counted all the same, or it could burn every spare.
        """
        kind = (reporter, type(error))
        of_kind = sum(count for (who, what, _peer), count in self._counts.items() if (who, what) == kind)
        return max(self._counts[(*kind, _about(error))], of_kind - 1)

    def add(self, reporter: Address, error: CorollaError) -> None:
        self._counts[(reporter, type(error), _about(error))] += 1

    def clear(self) -> None:
        """A step came through: every node of the chain did its part."""
        self._counts.clear()


def _about(error: CorollaError) -> str | None:
    peer = error.data.get("peer")
    return None if peer is None else str(peer)


def judge(report: Report, chain: Sequence[Address]) -> Verdict:
    """What to do about a Fault, `chain` being the nodes that stand, in order."""
    reporter, error = report.reporter, report.error
    if reporter not in chain:
        return Ignore()
    place = chain.index(reporter)
    match error:
        case VoucherTooSmall():
            owed = error.data["owed"]
            if not isinstance(owed, int) or owed > report.ordered:
                return Replace(reporter, PeerMisbehaved("demands more than it is owed", peer=reporter))
            if report.repeats >= MAX_REPEATS:
                return Replace(reporter, PeerMisbehaved("does not take the vouchers it gets", peer=reporter))
            return PayUp(reporter)
        case VoucherStale():
            known = error.data["known"]
            if isinstance(known, int) and known <= report.signed:
                return Ignore()  # two vouchers overtook each other; it has the better one
            return Replace(reporter, PeerMisbehaved("claims a voucher that was never signed", peer=reporter))
        case PeerUnreachable():
            peer = error.data["peer"]
            if peer not in chain:
                return Ignore()  # about a node replaced since
            if place + 1 < len(chain) and peer == chain[place + 1] and report.repeats == 0:
                return Replace(chain[place + 1], error)
            return Replace(reporter, error)  # it reaches nobody, or lies about somebody else
        case TensorRejected() if place > 0 and report.repeats == 0:
            # One of two is lying. If it is this one, it will say so of the next one too.
            return Replace(chain[place - 1], PeerMisbehaved(f"its output was refused: {error}", peer=chain[place - 1]))
        case LinkBroken():
            return Ignore()  # said for whoever reads the logs: both receipts come here, and `Linkage` compares them
        case PositionMismatch() if report.repeats < MAX_REPEATS:
            return SendAgain(reporter)
        case _:
            return Replace(reporter, error)
