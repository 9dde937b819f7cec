"""`validator report --scores`: what would be published of each node, beside what was settled last."""

from __future__ import annotations

from time import time

from corolla_core.chain.reputation import Reputation, Settlement
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.reputation import SCORE_ONE, ReputationTerms
from corolla_core.store.store import Store
from corolla_validator.fees import Fees
from corolla_validator.ports import Clock
from corolla_validator.press import Ratings
from corolla_validator.scores import Rated


async def score_rows(
    chain: Chain, store: Store, terms: ReputationTerms, *, clock: Clock = time
) -> list[dict[str, object]]:
    """An event for each node ever audited, in the order of their accounts. Raises ChainError, StoreError, ConfigError
    where the network has no oracle."""
    oracle = Reputation(chain)
    rated = await Ratings(store, Fees(chain, store), terms, clock=clock).now()
    return [_row(rated[node], await oracle.settled(node)) for node in sorted(rated)]


def _row(found: Rated, settled: Settlement | None) -> dict[str, object]:
    return {
        "event": "score",
        "node": found.node,
        "sessions": found.sessions,
        "passed": round(found.history.passed, 3),
        "failed": round(found.history.failed, 3),
        "score": round(found.score / SCORE_ONE, 4),
        "probation": found.probation,
        "settled": None if settled is None else round(settled.score / SCORE_ONE, 4),
        "epoch": None if settled is None else settled.epoch,
        "ratings": None if settled is None else settled.ratings,
        "clipped": None if settled is None else settled.clipped,
    }
