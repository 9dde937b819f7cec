"""What may be wrong with a swarm, seen from here: who serves what, whether they answer, and whose clock is off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from corolla_core.protocol.errors import NetworkError
from corolla_core.protocol.finding import Finding, State
from corolla_core.protocol.ids import ModelRoot
from corolla_core.protocol.span import uncovered
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.directory import Directory

DIAL_SECONDS = 3.0
SKEW_MS = 30_000


class Lookup(Protocol):
    """The part of `Directory` that is asked."""

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]: ...

    async def stop(self) -> None: ...


async def examine_swarm(
    network: str,
    bootstrap: Sequence[str],
    model_root: ModelRoot,
    num_blocks: int,
    *,
    start: Callable[..., Awaitable[Lookup]] = Directory.start,
    now: Callable[[], float] = time.time,
) -> tuple[list[Finding], list[Announcement]]:
    """What is found, and who is announced."""
    if not bootstrap:
        return [Finding("dht", "bad", "the network file names no bootstrap peer", "get a newer network file")], []
    advice = "no bootstrap peer answers: is this machine online, and does a firewall let it out?"
    try:
        directory = await start(network=network, bootstrap=bootstrap, client_mode=True)
    except NetworkError as error:
        return [Finding("dht", "bad", str(error), advice)], []
    try:
        found = await directory.lookup(model_root, num_blocks)
        answers = await asyncio.gather(*(answers_at(one.host, one.port) for one in found))
    except NetworkError as error:
        return [Finding("dht", "bad", str(error), advice)], []
    finally:
        await directory.stop()
    joined = Finding("dht", "good", f"joined through {len(bootstrap)} bootstrap peers")
    return [joined, *judge_swarm(found, num_blocks, answers.count(False)), *judge_peer_clocks(found, now())], found


def judge_swarm(spans: Sequence[Announcement], num_blocks: int, unreachable: int) -> list[Finding]:
    """Whether the announced nodes cover the model, and whether they are there."""
    if not spans:
        advice = "wait a minute; then check this machine's clock (what looks expired is dropped) and --network"
        return [Finding("coverage", "bad", f"nobody serves any of the {num_blocks} blocks", advice)]
    missing = uncovered(num_blocks, [a.span for a in spans])
    if missing:
        advice = "wait, or serve them: `node up MODEL --blocks auto`"
        covered = Finding("coverage", "bad", f"nobody serves blocks {missing}", advice)
    else:
        covered = Finding("coverage", "good", f"{len(spans)} nodes serve all {num_blocks} blocks")
    if unreachable:
        advice = "their records are stale or a firewall is between; the router will go around them"
        state: State = "bad" if unreachable == len(spans) else "poor"
        return [covered, Finding("nodes", state, f"{unreachable} of {len(spans)} do not answer", advice)]
    return [covered, Finding("nodes", "good", f"all {len(spans)} answer")]


def judge_peer_clocks(spans: Sequence[Announcement], here: float) -> list[Finding]:
    """Announcements from the future: of a few, their clocks are fast; of most, ours is slow. `here` in Unix seconds."""
    early = [one for one in spans if one.issued_at > here * 1000 + SKEW_MS]
    if not early:
        return []
    ahead = max(one.issued_at for one in early) / 1000 - here
    found = f"{len(early)} of {len(spans)} nodes are up to {ahead:.0f} s ahead"
    if 2 * len(early) > len(spans):
        return [Finding("peers' clocks", "bad", found, "set this machine's clock (NTP): it is behind theirs")]
    return [Finding("peers' clocks", "poor", found, "their clocks are fast; ours agrees with the others")]


async def answers_at(host: str, port: int) -> bool:
    """Whether something listens where a node says it does."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _reader, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
