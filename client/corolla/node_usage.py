"""What nodes did for a session, and what it cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from corolla.hop import Hop
from corolla.values import NodeUsage
from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar


def usage_of(hops: Iterable[Hop]) -> tuple[NodeUsage, ...]:
    """By node and span, in order of blocks; a node that was lost and came back is one."""
    added: dict[tuple[Span, Address], NodeUsage] = {}
    for hop in hops:
        key = (hop.leg.span, hop.account)
        done = added.get(key) or NodeUsage(hop.account, hop.leg.span, 0, Nectar(0), Nectar(0))
        added[key] = replace(
            done,
            tokens=done.tokens + hop.tokens,
            cost=Nectar(done.cost + hop.cost),
            paid=Nectar(done.paid + max(0, hop.cost - hop.purse.account.unpaid)),
            alive=not hop.lost,
        )
    return tuple(added[key] for key in sorted(added))
