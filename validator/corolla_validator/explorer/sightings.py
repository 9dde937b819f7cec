"""The last that each node announced. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corolla_core.protocol.ids import Address
from corolla_core.swarm.announcement import Announcement

REMEMBERED_MS = 3_600_000
"""After it expired: a node that died is to be seen dead, not gone."""


def sighted(
    known: Mapping[Address, Announcement], found: Iterable[Announcement], *, now_ms: int
) -> dict[Address, Announcement]:
    """What is known after a lookup, which may have missed some. The newer of two announcements stands."""
    latest = dict(known)
    for one in found:
        before = latest.get(one.account)
        if before is None or (one.issued_at, one.expires_at) >= (before.issued_at, before.expires_at):
            latest[one.account] = one
    return {account: one for account, one in latest.items() if now_ms < one.expires_at + REMEMBERED_MS}
