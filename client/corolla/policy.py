"""How a session picks and treats nodes, and what it reserves at them."""

from __future__ import annotations

from dataclasses import dataclass

from corolla_core.protocol.reputation import ReputationTerms

NO_BLOCKS = (0, 0)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a session picks and treats nodes. Times are seconds.

    `price_importance`: see `Preference.balanced`. `spares`: chains of substitutes per hop that a tranche has leaves
    for. `max_price`: nodes that ask more per token and block are never used. `newcomer_share`: the share of sessions
    that may choose among nodes without a score; the others use those only where nobody else serves. `prefill_tokens`:
    how much of a prompt goes into one step at most; `window_bytes`: how much of it may be on its way at once.
    `patience`: how long to look for a route that is not there. `step`: how long a step may take, and `step_per_token`
    what each of its tokens adds. `local_blocks`: how many of the model's first and last blocks stay on the client's own
    machine; no node is asked or paid for those.
    """

    wire_dtype: str = "float32"
    local_blocks: tuple[int, int] = NO_BLOCKS
    chunk_tokens: int = 8
    prefill_tokens: int = 128
    window_bytes: int = 16 * 2**20
    price_importance: float = 0.5
    spares: int = 2
    max_price: int | None = None
    newcomer_share: float = ReputationTerms().newcomer_share
    patience: float = 15.0
    open_patience: float = 3.0
    connect: float = 5.0
    answer: float = 20.0
    step: float = 60.0
    step_per_token: float = 0.5
    max_failovers: int = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """What a session reserves: `batch` rows of at most `max_tokens` positions, `hidden` numbers each."""

    batch: int
    max_tokens: int
    hidden: int
