"""Joining nodes up into a chain: each is told who is beside it, and new ones are given the history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from corolla.hop import Hop, pay
from corolla.wallet import Wallet
from corolla_core.protocol.errors import CorollaError, NetworkError, PeerMisbehaved, PeerTimeout
from corolla_core.protocol.ids import Address, SessionId, address_bytes
from corolla_core.swarm.messages import Rewire, Rewired

Replay = Callable[[Hop, int], Awaitable[None]]
"""Sends the client's own inputs `[0, upto)` to a node that is new at the head of the chain."""
Lose = Callable[[Hop, CorollaError], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds to wait for an answer, and how many more for each position replayed."""

    answer: float
    per_token: float


class Wiring:
    """Joins up the hops of one session."""

    def __init__(self, session: SessionId, wallet: Wallet, patience: Patience, lose: Lose) -> None:
        self._session = session
        self._wallet = wallet
        self._patience = patience
        self._lose = lose

    async def join_up(self, hops: Sequence[Hop], replay_to: int, replay: Replay) -> None:
        """Make every hop's neighbours known to it, and bring fresh ones to position `replay_to`.

        Nodes that stay compute nothing again. Raises NetworkError when one is lost on the way (then call it again with
        the hops that are left), PaymentError when a replay cannot be paid, StoreError.
        """
        places = [
            (hops[place - 1] if place else None, hop, hops[place + 1] if place + 1 < len(hops) else None)
            for place, hop in enumerate(hops)
        ]
        # Everyone first learns whom to hear: a replay must not reach a node that would refuse it.
        for before, hop, after in places:
            if hop.upstream != _account(before):
                await self._rewire(hop, before, after, 0)
        for before, hop, after in places:
            if before is None and hop.fresh:
                await self._order_replay(hop, replay_to)
                await replay(hop, replay_to)
                hop.fresh = False
            upto = replay_to if after is not None and after.fresh else 0
            if after is not None and upto:
                await self._order_replay(after, upto)
            if hop.downstream != _account(after) or upto:
                await self._rewire(hop, before, after, upto)
            if after is not None:
                after.fresh = False

    async def _order_replay(self, hop: Hop, upto: int) -> None:
        """Order and pay the work that the history will be to a new node, which signs for no reordering in it."""
        if upto:
            hop.order(upto)
            if hop.chain is not None:
                hop.chain.replayed = upto
            await pay(self._wallet, [hop])

    async def _rewire(self, hop: Hop, before: Hop | None, after: Hop | None, upto: int) -> None:
        if hop.lost or (after is not None and after.lost):
            raise NetworkError("a node was lost while the chain was joined up")
        upstream = None if before is None else address_bytes(before.account)
        message = Rewire(self._session, None if after is None else after.endpoint, upto, upstream)
        try:
            # A replay waits for rows that may still be on their way to this very node, hence the patience.
            answer = await hop.ask(message, seconds=self._patience.answer + self._patience.per_token * upto)
        except TimeoutError:
            late = PeerTimeout("does not answer Rewire", peer=hop.account)
            if after is None or not after.lost:
                self._lose(hop, late)
            raise late from None
        except CorollaError as error:
            raise NetworkError(f"a rewiring was interrupted: {error}") from error
        if not isinstance(answer, Rewired):
            misplaced = PeerMisbehaved("answers Rewire with something else", peer=hop.account)
            self._lose(hop, misplaced)
            raise misplaced
        hop.upstream, hop.downstream = _account(before), _account(after)


def _account(hop: Hop | None) -> Address | None:
    return None if hop is None else hop.account
