"""Which sessions are audited: drawn by a beacon that nobody knows when the receipts are signed.

The beacon is the hash of a block `BEACON_DELAY` blocks after the one by which a session's receipts were committed. A
session's *ticket* is SHA-256 over tag, beacon and session id, read as a number; it is audited when the ticket falls
below the audit probability's share of all tickets. So

- before the beacon nobody can tell an audited session from another, however it chose its session id;
- after it everybody who knows the session id can check the draw;
- the draws of rising probabilities are nested: who is audited at p is audited at every larger p.

Who mines the beacon's block can throw a block away to draw again; each retry costs that miner a block's reward, which
must stay above what one audit can cost a node (protocol.md section 3 names commit-reveal as the alternative).
"""

from __future__ import annotations

from fractions import Fraction
from hashlib import sha256

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Hash32, SessionId
from corolla_core.protocol.probability import probability

BEACON_DELAY = 8
"""Blocks between a commitment and the block whose hash draws over it."""
_TICKETS = 2**256
_AUDIT = b"corolla/audit-draw/1"
_CHOICE = b"corolla/audit-choice/1"


def beacon_height(committed_at: int) -> int:
    """The height of the block whose hash is the beacon for what was committed by block `committed_at`."""
    if type(committed_at) is not int or committed_at < 0:
        raise InvalidInput(f"not a block height: {committed_at!r:.40}")
    return committed_at + BEACON_DELAY


def ticket(beacon: Hash32, session: SessionId) -> int:
    """The session's number in [0, 2**256). Raises InvalidInput unless the beacon is 32 bytes and the id 16."""
    return _number(_AUDIT, beacon, session)


def is_audited(beacon: Hash32, session: SessionId, audit_probability: Fraction) -> bool:
    """Whether the beacon draws this session at this probability: exact, `ticket < p · 2**256`."""
    p = probability("audit", audit_probability)
    return ticket(beacon, session) * p.denominator < p.numerator * _TICKETS


def choice(beacon: Hash32, session: SessionId, purpose: bytes, count: int) -> int:
    """One of `count` things about an audited session (its hop, its positions), drawn by the same beacon: an index in
    [0, count). Different purposes draw independently. The bias is below count / 2**256."""
    if type(count) is not int or not 0 < count < 2**64:
        raise InvalidInput(f"nothing to choose from: {count!r:.40}")
    return _number(_CHOICE + sha256(purpose).digest(), beacon, session) * count // _TICKETS


def _number(tag: bytes, beacon: bytes, session: bytes) -> int:
    if len(beacon) != 32 or len(session) != 16:
        raise InvalidInput("a draw takes a beacon of 32 bytes and a session id of 16")
    return int.from_bytes(sha256(tag + beacon + session).digest(), "big")
