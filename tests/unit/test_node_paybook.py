"""A node's pages: as many as there are tranches that can still pay, and no more."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from node_peers import DOMAIN, FakeChain, FakeDisk, FakeTranche, signer

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.protocol.errors import TrancheUnknown
from corolla_core.protocol.ids import TrancheId
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_node.bookkeeper import Bookkeeper
from corolla_node.loading import choose_blocks
from corolla_node.paybook import FORGET_AFTER, Paybook

pytestmark = pytest.mark.anyio

NODE, PAYER = signer("node").address, signer("payer").address
TREE = SumTree([Leaf(NODE, Nectar(1000))])


async def test_a_page_is_dropped_a_day_after_its_tranche_expired_unless_a_step_is_held() -> None:
    now = 0.0
    chain, disk = FakeChain(), FakeDisk()
    book = Paybook(
        payee=NODE, domain=DOMAIN, tranches=chain, memory=disk, bookkeeper=Bookkeeper(disk.write), clock=lambda: now
    )
    spent, busy, fresh = (TrancheId(bytes([n]) * 32) for n in (1, 2, 3))
    for tranche_id, expiry in ((spent, 5000), (busy, 5000), (fresh, 5000 + 2 * FORGET_AFTER)):
        chain.known[tranche_id] = FakeTranche(PAYER, PAYER, TREE.root, UnixTime(expiry))
    for tranche_id in (spent, busy):
        await book.enroll(tranche_id, TREE.leaves[0], TREE.proof(0))
    book.hold(busy, Nectar(10), credit=Nectar(10))
    now = 5000.0 + FORGET_AFTER
    await book.enroll(fresh, TREE.leaves[0], TREE.proof(0))
    with pytest.raises(TrancheUnknown):
        book.account(spent)
    assert book.account(busy).held == 10
    assert book.account(fresh).charged == 0


def announced(span: Span, state: NodeState) -> Announcement:
    return cast(Announcement, SimpleNamespace(span=span, throughput=1000, state=state))


@pytest.mark.parametrize(
    ("state", "lacking"),
    [(NodeState.DRAINING, Span(0, 2)), (NodeState.OFFLINE, Span(0, 2)), (NodeState.LOADING, Span(2, 4))],
)
async def test_blocks_whose_node_is_leaving_are_lacking(state: NodeState, lacking: Span) -> None:
    model: Any = SimpleNamespace(num_blocks=4)
    swarm = [announced(Span(2, 4), NodeState.ONLINE)] if state is not NodeState.LOADING else []
    swarm.append(announced(Span(0, 2), state))
    assert choose_blocks(cast(Checkpoint, model), swarm, at_most=2, rng=Random(0)) == lacking
