"""API keys: 256 random bits in text, kept as their SHA-256 only.

One fast hash is right for a key, as it would be wrong for a password. A password is guessed from a dictionary, so
each guess must be slow and each user's hash salted; of 2**256 equally likely keys none is ever guessed, however fast
the hash is, and no two are alike that a salt should tell apart. A stolen database gives away digests nobody can invert.

A key is compared by looking its digest up in an index. How long that takes may tell how long a prefix of digests
agrees, but nobody can choose the digest of a key that they do not have: there is nothing to be gained by timing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field

from corolla_core.protocol.errors import InvalidInput, KeyRefused
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.gateway_store import ApiKey

PREFIX = "sk-corolla-"
_BYTES = 32
_HINT = len(PREFIX) + 4
_FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: `secret` is shown to its holder now and is nowhere else."""

    key: ApiKey
    secret: str = field(repr=False)


def new_key(
    label: str,
    *,
    now: UnixTime,
    budget: Nectar | None = None,
    daily: bool = False,
    private: bool = False,
    expires_at: UnixTime | None = None,
) -> NewKey:
    """Raises InvalidInput for a label that is empty, longer than 80 characters or not printable."""
    if not label.strip() or len(label) > 80 or not label.isprintable():
        raise InvalidInput("a label is 1 to 80 printable characters")
    if daily and budget is None:
        raise InvalidInput("a daily budget needs an amount")
    secret = PREFIX + secrets.token_urlsafe(_BYTES)
    return NewKey(
        ApiKey(
            key_hash=key_hash(secret),
            label=label,
            hint=secret[:_HINT],
            budget=budget,
            daily=daily,
            private=private,
            created_at=now,
            expires_at=expires_at,
        ),
        secret,
    )


def key_hash(secret: str) -> Hash32:
    """What a key is known by. Raises KeyRefused for text that cannot be a key."""
    if _FORM.fullmatch(secret) is None:
        raise KeyRefused("no such API key")
    return Hash32(hashlib.sha256(secret.encode()).digest())
