"""The nodes a client knows of: what the directory says, how far each is, and which to leave alone for a while."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from corolla.paces import Paces
from corolla.router import HOP_SECONDS, Candidate, Leg
from corolla.standing import NEUTRAL_SCORE, Standing
from corolla_core.protocol.errors import NetworkError, OutOfCapacity, PeerMisbehaved, PeerUnreachable
from corolla_core.protocol.ids import Address, ModelRoot
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.messages import Endpoint

_log = structlog.get_logger(__name__)

#: Seconds a node is left alone after it misbehaved, after it was full, and after anything else went wrong with it. What
#: is full has room again when any session ends.
MISBEHAVED_SECONDS = 600.0
FULL_SECONDS = 2.0
FAILED_SECONDS = 20.0
#: Announcements older than this are looked up again before a new route is chosen.
FRESH_SECONDS = 10.0
#: Seconds that a node is taken to be away until that is measured: about as far as any. What nobody measured must not
#: look nearer than what somebody did, or whoever is many is tried many times (docs/adr/0040).
UNMEASURED_RTT = 0.2
#: How much slower a node is for each session this client has there: sixteen at one node together decode 5.3 times as
#: fast as one, so that each makes a token take 0.14 times longer; their prompts share nothing.
SESSION_LOAD = 0.25


class Lookup(Protocol):
    """The part of `Directory` a client needs."""

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]: ...


def anybody(_account: Address) -> bool:
    """Whom a swarm admits that is open to all."""
    return True


class Peers:
    """Who serves one model. `rtt` gives measured round trips in seconds, None where there is none yet; `standing` what
    the chain says of a node, by default that all are newcomers; `admitted` whether a private swarm still admits it."""

    def __init__(
        self,
        directory: Lookup,
        model_root: ModelRoot,
        num_blocks: int,
        *,
        rtt: Callable[[Address], float | None],
        standing: Callable[[Address], Standing] = lambda _account: Standing(),
        admitted: Callable[[Address], bool] = anybody,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.model_root = model_root
        self.num_blocks = num_blocks
        self._directory = directory
        self._rtt = rtt
        self._standing = standing
        self.admitted = admitted
        self._rng = rng or random.Random()
        self._clock = clock
        self._paces = Paces(clock)
        self._known: dict[Address, Announcement] = {}
        self._looked_up_at: float | None = None
        self._shunned: dict[Address, float] = {}
        self._looking = asyncio.Lock()
        self.sessions: Counter[Address] = Counter()
        """this client's own, by the node they are at or about to be opened at"""

    async def refresh(self, *, within: float = FRESH_SECONDS) -> None:
        """Look up, unless that was done less than `within` seconds ago. A lookup that fails leaves what was known;
        NetworkError only when nothing is."""
        async with self._looking:
            if self._looked_up_at is not None and self._clock() - self._looked_up_at < within:
                return
            try:
                found = await self._directory.lookup(self.model_root, self.num_blocks)
            except NetworkError as error:
                if not self._known:
                    raise
                _log.warning("the directory does not answer; using what it said before", error=str(error))
                return
            for announcement in found:
                before = self._known.get(announcement.account)
                if before is not None and before.cert_hash != announcement.cert_hash:
                    self._forgive(announcement.account)  # another process than the one that failed
            self._known = {announcement.account: announcement for announcement in found}
            self._paces.announced(found)
            self._looked_up_at = self._clock()

    def announcements(self) -> list[Announcement]:
        """Everything last looked up."""
        return list(self._known.values())

    def newcomers_turn(self, share: float) -> bool:
        """Whether a session may choose among newcomers: drawn once a session, not once a node, so that a hundred of
        them are together as likely to be chosen as one."""
        return self._rng.random() < share

    def candidates(
        self,
        *,
        tokens: int,
        wire_dtype: str,
        batch: int = 1,
        max_price: int | None = None,
        newcomers: bool = True,
    ) -> list[Candidate]:
        """Nodes that take new sessions, speak `wire_dtype`, have room for `batch` rows of `tokens` positions, and
        ask at most `max_price` per token and block; shunned ones not. Newcomers are in reserve without `newcomers`."""
        return [
            self._candidate(a, newcomers)
            for a in self._known.values()
            if a.state is NodeState.ONLINE
            and wire_dtype in a.wire_dtypes
            and a.kv_free_tokens >= batch * tokens
            and (max_price is None or a.price.per_token_block <= max_price)
            and a.span.end <= self.num_blocks
            and not self.shunned(a.account)
            and self.admitted(a.account)
        ]

    def by_lot(self) -> Endpoint | None:
        """A node to measure next, drawn by stake; one that is known already keeps its tickets. So an owner's nodes are
        found no sooner for being many, and those of others no later. None where nobody is online."""
        online = [
            a
            for a in self._known.values()
            if a.state is NodeState.ONLINE and not self.shunned(a.account) and self.admitted(a.account)
        ]
        if not online:
            return None
        weights = [max(1, self._standing(a.account).stake) for a in online]
        return self._rng.choices(online, weights)[0].endpoint()

    def _candidate(self, announcement: Announcement, newcomers: bool) -> Candidate:
        account = announcement.account
        standing = self._standing(account)
        newcomer = standing.score is None
        return Candidate(
            account=account,
            span=announcement.span,
            price=announcement.price,
            seconds_per_block=self._paces.of(account) * (1 + SESSION_LOAD * self.sessions[account]),
            rtt=self._away(account),
            score=NEUTRAL_SCORE if standing.score is None else standing.score,
            owner=standing.owner,
            in_reserve=newcomer and not newcomers,
        )

    def endpoint(self, account: Address) -> Endpoint:
        """Raises PeerUnreachable for a node the directory does not know."""
        if account not in self._known:
            raise PeerUnreachable("the directory has no address for this node", peer=account)
        return self._known[account].endpoint()

    def took(self, legs: Sequence[Leg], seconds: float) -> None:
        """A token went through these hops and came back after `seconds`: what the router knows of their pace."""
        way = sum(HOP_SECONDS + self._away(leg.account) / 2 for leg in legs)
        self._paces.took([(leg.account, len(leg.span)) for leg in legs], max(0.0, seconds - way))

    def _away(self, account: Address) -> float:
        return self._rtt(account) or UNMEASURED_RTT

    def shun(self, account: Address, error: Exception) -> None:
        """Leave a node alone for a while."""
        match error:
            case PeerMisbehaved():
                seconds = MISBEHAVED_SECONDS
            case OutOfCapacity():
                seconds = FULL_SECONDS
            case _:
                seconds = FAILED_SECONDS
        self._shunned[account] = max(self._shunned.get(account, 0.0), self._clock() + seconds)

    def _forgive(self, account: Address) -> None:
        if self._shunned.get(account, 0.0) <= self._clock() + FAILED_SECONDS:
            self._shunned.pop(account, None)

    def shunned(self, account: Address) -> bool:
        return self._clock() < self._shunned.get(account, float("-inf"))
