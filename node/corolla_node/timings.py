"""Where a step's time goes, kept in bounded memory: counts, sums, and the last few hundred samples for medians."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

_KEPT = 512


@dataclass(frozen=True, slots=True)
class StepTiming:
    """One step, in seconds, from the frame's arrival to the hand-over of its output to the socket.

    `received` is when the frame had arrived, by `perf_counter`, which on Linux the processes of a machine share.
    `decode` checks and unpacks the input tensor, `queue` waits for the compute thread, `compute` is the forward pass,
    in which `pass_rows` positions of this and other sessions were computed, `encode` turns the output into wire bytes,
    `deliver` brings it back to the event loop, `send` writes it to the socket, `pay` is what checking the payment of
    this step took.
    """

    tokens: int
    received: float
    decode: float
    queue: float
    compute: float
    encode: float
    deliver: float
    send: float
    pay: float
    pass_rows: int

    @property
    def overhead(self) -> float:
        """Everything but the forward pass."""
        return self.decode + self.queue + self.encode + self.deliver + self.send + self.pay


_PARTS = ("decode", "queue", "compute", "encode", "deliver", "send", "pay", "overhead")


class StepTimings:
    """An aggregate of step timings; `decode` steps (one position) and `prefill` steps apart."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[StepTiming]] = {"decode": deque(maxlen=_KEPT), "prefill": deque(maxlen=_KEPT)}
        self._steps = {"decode": 0, "prefill": 0}
        self._tokens = {"decode": 0, "prefill": 0}
        self._compute = {"decode": 0.0, "prefill": 0.0}
        self.vouchers = 0
        self.voucher_seconds = 0.0
        self.receipted = 0
        self.receipt_seconds = 0.0

    def add(self, timing: StepTiming, *, single: bool) -> None:
        kind = "decode" if single else "prefill"
        self._recent[kind].append(timing)
        self._steps[kind] += 1
        self._tokens[kind] += timing.tokens
        self._compute[kind] += timing.compute * timing.tokens / timing.pass_rows

    def add_voucher(self, seconds: float) -> None:
        """The time the event loop spent on one voucher."""
        self.vouchers += 1
        self.voucher_seconds += seconds

    def add_receipt(self, seconds: float, positions: int) -> None:
        """The processor time that a receipt took, with its trees, its signature and keeping the rows."""
        self.receipted += positions
        self.receipt_seconds += seconds

    @property
    def recent_decode(self) -> tuple[StepTiming, ...]:
        """The last one-position steps, oldest first."""
        return tuple(self._recent["decode"])

    @property
    def tokens(self) -> int:
        return sum(self._tokens.values())

    def throughput(self) -> float:
        """Decoded tokens a second of compute so far; 0.0 before the first."""
        seconds = self._compute["decode"]
        return self._tokens["decode"] / seconds if seconds else 0.0

    def summary(self) -> dict[str, object]:
        """For `node status --json`: totals, and median milliseconds of each part over the recent steps."""
        shown: dict[str, object] = {
            "vouchers": self.vouchers,
            "voucher_seconds": round(self.voucher_seconds, 6),
            "receipted": self.receipted,
            "receipt_seconds": round(self.receipt_seconds, 6),
        }
        for kind, recent in self._recent.items():
            medians = {part: round(1e3 * median(getattr(t, part) for t in recent), 4) for part in _PARTS if recent}
            shown[kind] = {
                "steps": self._steps[kind],
                "tokens": self._tokens[kind],
                "median_ms": medians,
                "median_pass_rows": median(t.pass_rows for t in recent) if recent else 0,
            }
        return shown
