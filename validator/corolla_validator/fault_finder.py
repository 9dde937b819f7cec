"""Looks through what nodes signed of a session for what their signatures alone convict them of."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from corolla_core.protocol.errors import CorollaError, StoreError
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.provable import (
    FalseWeights,
    ProvableFault,
    broken_links,
    claims_false_weights,
    unmet,
)
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.receipt_chain import ChainKey, Linked, link
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.messages import MAX_RECEIPTS
from corolla_validator.ports import Nodes, Publications

_log = structlog.get_logger(__name__)


class FaultFinder:
    """Finds each kind of fault once in each chain of receipts: the first proof costs a node all there is to take."""

    def __init__(self, nodes: Nodes, store: Store, published: Publications) -> None:
        self._nodes = nodes
        self._store = store
        self._books = ValidatorStore(store)
        self._published = published
        self._found: set[tuple[type[ProvableFault], ChainKey]] = set()
        self._asked: set[Hash32] = set()

    def unfit(self, key: ChainKey) -> bool:
        """Whether a chain is for weights that this model does not have: there is nothing to recompute it with."""
        return (FalseWeights, key) in self._found

    async def look(self, linked: Linked, online: Mapping[Address, Announcement]) -> list[ProvableFault]:
        """What is new in a chain that has grown and in its neighbours'. Raises ChainError, StoreError.

        A receipt that it names and that is not in the books is asked of the node itself, which keeps what it signs
        over: its neighbour may have shown us another one, or none.
        """
        session = linked.key.session
        mine = [*linked.chain, *linked.loose]
        known = await self._store.run(self._books.receipts, session)
        missing = [name for name in unmet(mine, known) if name not in self._asked]
        if missing and await self._ask(online.get(linked.key.signer), missing):
            known = await self._store.run(self._books.receipts, session)
        found: list[ProvableFault] = [fork for each in link(known) for fork in each.forks]
        found += broken_links(known)
        for signed in mine:
            if await self._false_weights(signed):
                found.append(FalseWeights(signed))
        return [fault for fault in found if self._is_new(fault)]

    async def _ask(self, node: Announcement | None, missing: list[Hash32]) -> bool:
        """Whether anything new is in the books now. A node that cannot be asked is asked again when its chain grows."""
        if node is None:
            return False
        try:
            answers = await self._nodes.named(node, missing[:MAX_RECEIPTS])
        except StoreError:
            raise
        except CorollaError as error:
            _log.info("a node does not show what it signed over", peer=node.account, error=str(error))
            return False
        self._asked.update(missing[:MAX_RECEIPTS])
        wanted = [signed for signed in answers if signed.receipt.hash() in missing]
        for signed in wanted:
            await self._store.run(self._books.record_receipt, signed)
        return bool(wanted)

    async def _false_weights(self, signed: SignedReceipt) -> bool:
        model = await self._published.now()
        if model is None or not claims_false_weights(signed.receipt, model):
            return False
        model = await self._published.now(within=0.0)  # the class may have been published a moment ago
        return model is not None and claims_false_weights(signed.receipt, model)

    def _is_new(self, fault: ProvableFault) -> bool:
        receipt = fault.receipts[0].receipt
        key = type(fault), ChainKey(fault.node, receipt.session_id, receipt.client_nonce)
        if key in self._found:
            return False
        self._found.add(key)
        return True
