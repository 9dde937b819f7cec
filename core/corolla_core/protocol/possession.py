"""Showing that one holds weights: salted digests of chunks of them, due by a deadline (protocol.md section 3, Sybils).

    digest = SHA-256("corolla/possession/v1" ‖ account (20 bytes) ‖ salt (32 bytes) ‖ chunk)

A chunk is up to 1 MiB of a tensor as the checkpoint stores it, as the manifest hashes it (`model.chunks`). The salt is
the asker's and fresh, so that no digest can be computed before it is asked for; the account is the answerer's, so that
no digest another node gave is of any use. Whoever lacks the chunks must fetch them, and the deadline is what reading
them takes: `Pace`. It proves that the bytes were within reach, not that this node computes with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Address, Hash32, address_bytes

MOST_CHUNKS = 256
"""Chunks of one question."""
TRIES = 3
"""Questions in a row without a right answer in time, after which a node's weights are in doubt."""
_TAG = b"corolla/possession/v1"


class Held(StrEnum):
    """What came of a question. A node that is down was not asked."""

    HELD = "held"
    WRONG = "wrong"
    """other digests than the weights give, or no digests at all"""
    LATE = "late"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long an answer may take: `slack` seconds for the round trip and its turn, and reading at `rate` bytes/s."""

    rate: int
    slack: float

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.slack < 0:
            raise InvalidInput("a pace has a positive rate and no negative slack")

    def deadline(self, nbytes: int) -> float:
        """Seconds from the question to the answer."""
        return self.slack + nbytes / self.rate

    def slowest_link(self, nbytes: int) -> float:
        """Bytes a second. Who must first fetch all that is asked for over a slower link is late, whatever else it
        does; who has `1 - f` of it must fetch at `f` times this."""
        return nbytes / self.deadline(nbytes)


@dataclass(frozen=True, slots=True)
class Doubt:
    """What a node's answers say of it, one after another. It steers routes and scores, and never costs stake."""

    failures: int = 0

    def after(self, outcome: Held) -> Doubt:
        """A right answer in time ends all doubt: the weights are there."""
        return Doubt() if outcome is Held.HELD else Doubt(self.failures + 1)

    @property
    def doubted(self) -> bool:
        return self.failures >= TRIES


def possession_digest(account: Address, salt: Hash32, chunk: bytes | bytearray | memoryview) -> Hash32:
    """What `account` answers for one chunk."""
    state = sha256(_TAG + address_bytes(account) + salt)
    state.update(chunk)
    return Hash32(state.digest())


def judge_digests(expected: list[Hash32], shown: list[bytes]) -> int:
    """How many chunks were not shown: all of them where the answer is for another number of chunks."""
    if len(shown) != len(expected):
        return len(expected)
    return sum(one != other for one, other in zip(expected, shown, strict=True))
