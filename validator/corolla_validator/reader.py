"""Reads nodes' receipts as they come, and puts them in order."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from corolla_core.protocol.errors import CorollaError, PeerMisbehaved
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, SessionId
from corolla_core.protocol.receipt_chain import Linked, link
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_core.swarm.announcement import Announcement
from corolla_validator.ports import Nodes

_log = structlog.get_logger(__name__)

OVERLAP_MS = 10_000
"""How far each reading goes back behind the one before: receipts reach a node's store a little out of order."""
MOST_PAGES = 50
"""Of one node in one round, so that none with a long history keeps the others waiting."""


@dataclass(frozen=True, slots=True)
class _Place:
    t_out: int
    after: Hash32


class Reader:
    """`since`: receipts made before this time (Unix milliseconds) are of no interest."""

    def __init__(self, nodes: Nodes, store: Store, *, since: int) -> None:
        self._nodes = nodes
        self._store = store
        self._books = ValidatorStore(store)
        self._start = _Place(max(0, since), ZERO_HASH)
        self._places: dict[Address, _Place] = {}
        self._recent: dict[Address, dict[Hash32, int]] = {}

    async def read(self, node: Announcement) -> list[Linked]:
        """The chains of a node that have grown since the last call. A node that does not answer has none.

        Receipts it did not sign are not taken: it is confused, or frames somebody.
        """
        try:
            touched = await self._read(node)
        except CorollaError as error:
            _log.warning("a node does not show its receipts", peer=node.account, error=str(error))
            return []
        return [linked for session in sorted(touched) for linked in await self.chains(node.account, session)]

    async def chains(self, node: Address, session: SessionId) -> list[Linked]:
        """What is kept of a session at a node; more than one chain where it was opened there again."""
        kept = await self._store.run(lambda: self._books.receipts(session, signer=node))
        return link(kept)

    async def _read(self, node: Announcement) -> set[SessionId]:
        account = node.account
        place, recent = self._places.get(account, self._start), self._recent.setdefault(account, {})
        touched: set[SessionId] = set()
        for _page in range(MOST_PAGES):
            receipts, more = await self._nodes.receipts(node, place.t_out, place.after)
            for signed in receipts:
                here = _Place(signed.receipt.t_out, signed.receipt.hash())
                if (here.t_out, here.after) <= (place.t_out, place.after):
                    raise PeerMisbehaved("shows its receipts out of order", peer=account)
                if signed.signer() != account:
                    raise PeerMisbehaved("shows receipts it did not sign", peer=account)
                if here.after not in recent:
                    await self._store.run(self._books.record_receipt, signed)
                    recent[here.after] = here.t_out
                    touched.add(signed.receipt.session_id)
                place = here
            self._places[account] = place
            if not more:
                break
        again = max(self._start.t_out, place.t_out - OVERLAP_MS)
        if not more:
            self._places[account] = _Place(again, ZERO_HASH)
        self._recent[account] = {hash_: t_out for hash_, t_out in recent.items() if t_out >= again}
        return touched
