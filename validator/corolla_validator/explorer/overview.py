"""The page's head: what network this is, and its figures. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corolla_core.protocol.units import nectar_to_text
from corolla_validator.explorer.books import Shelf
from corolla_validator.explorer.ledger import Ledger
from corolla_validator.explorer.models import Counts, Coverage, Health, NodeView, Overview, PlaygroundView, State

_NO_PLAYGROUND = PlaygroundView(available=False)


@dataclass(frozen=True, slots=True)
class About:
    """What does not change while the explorer runs. `tx_url` is put before a transaction's hash, to link to it."""

    network: str
    chain_id: int
    model: str
    model_root: str
    num_blocks: int
    tx_url: str | None = None
    playground: PlaygroundView = _NO_PLAYGROUND


def overview(
    about: About,
    *,
    head: int,
    nodes: Iterable[NodeView],
    covered: Coverage,
    ledger: Ledger,
    shelf: Shelf,
    health: tuple[Health, ...],
) -> Overview:
    states = [node.state for node in nodes]
    counts = Counts(
        serving=states.count(State.SERVING),
        down=states.count(State.DOWN),
        nodes=len(covered.rows),
        covered=sum(count > 0 for count in covered.servers),
        audits=len(shelf.audits),
        failed_audits=shelf.failed,
        sessions=shelf.sessions,
        disputes=len(ledger.state.justice.disputes),
        slashed_nodes=len(ledger.slashed),
        slashed=nectar_to_text(sum(ledger.slashed.values())),
        earned=nectar_to_text(sum(earned.amount - earned.burned for earned in ledger.earned.values())),
    )
    return Overview(
        network=about.network,
        chain_id=about.chain_id,
        model=about.model,
        model_root=about.model_root,
        num_blocks=about.num_blocks,
        head=head,
        tx_url=about.tx_url,
        playground=about.playground,
        counts=counts,
        health=health,
    )
