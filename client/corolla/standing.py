"""What the chain says of a node, and what that means for a session: risk, probation, and who to keep away from."""

from __future__ import annotations

from dataclasses import dataclass

from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import Nectar

#: A node scored under this is used only where nobody else serves. Scores are lower bounds, and validators publish those
#: of nodes off probation alone: such a node, with the least evidence that makes a score, failed about half its audits.
BAD_SCORE = 0.3
#: How a newcomer's risk counts: the mean of a belief that knows nothing, Beta(1, 1).
NEUTRAL_SCORE = 0.5
#: How often the work of a node that failed is done again.
REDO = 1.0
#: Seconds that every block at such a node counts as more: beyond any hop, so that it is taken for want of others only.
NEWCOMER_RELUCTANCE = 1e3
BAD_RELUCTANCE = 1e6


@dataclass(frozen=True, slots=True)
class Standing:
    """`owner`: whose stake is behind the node, None where the chain does not say. `score`: in [0, 1], None for a
    newcomer, of which no score was ever settled. `stake`: in base units."""

    owner: Address | None = None
    score: float | None = None
    stake: Nectar = Nectar(0)  # noqa: RUF009 — an int


def risk_factor(score: float) -> float:
    """What a hop costs in expectation, as a multiple of what it costs when nothing fails: `1 + REDO × (1 - score)`.

    With probability at most `1 - score`, the score being a lower bound of the rate of success, the work is done again,
    at a node much like this one. Between 1 and 1 + REDO, so a good name outweighs being twice as slow, and no more.
    """
    return 1.0 + REDO * (1.0 - min(1.0, max(0.0, score)))
