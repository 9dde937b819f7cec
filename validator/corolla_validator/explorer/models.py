"""What the explorer's JSON says. Amounts are decimal text in whole tokens, times Unix seconds, hashes hex."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """Never changes: a snapshot is shared by everybody who looks."""

    model_config = ConfigDict(frozen=True)


class State(StrEnum):
    """What a node is to a client, the worst first."""

    EXPELLED = "expelled"
    """convicted, and out for good"""
    JAILED = "jailed"
    UNSTAKED = "unstaked"
    """less stake than the registry asks for"""
    DOWN = "down"
    """announced, and does not answer"""
    AWAY = "away"
    """announces nothing, or said goodbye"""
    LOADING = "loading"
    DRAINING = "draining"
    CHECKING = "checking"
    """not heard yet since the explorer looks"""
    SERVING = "serving"


class Blocks(View):
    """Half-open: `start` to `end - 1`."""

    start: int
    end: int


class Tally(View):
    passed: int = 0
    failed: int = 0
    undecided: int = 0


class LastAudit(View):
    outcome: str
    at: int


class NodeView(View):
    """`score` is what the oracle settled, `own_score` what these books would publish, both 0 to 1."""

    account: str
    state: State
    blocks: Blocks | None = None
    host: str = ""
    peer_id: str = ""
    numeric_class: str = ""
    wires: tuple[str, ...] = ()
    tokens_per_second: float | None = None
    sessions: int | None = None
    price_per_1000: str | None = None
    stake: str
    unbonding: str
    slashed: str
    jailed_until: int | None = None
    earned: str
    score: float | None = None
    own_score: float | None = None
    probation: bool = True
    standing: str = "clear"
    weights: str = "not asked"
    audits: Tally = Tally()
    last_audit: LastAudit | None = None


class Row(View):
    """A node's bar in the heat map."""

    account: str
    state: State
    blocks: Blocks


class Coverage(View):
    """`servers` counts, for each block, the nodes a client can use now; `gaps` are the blocks with none."""

    num_blocks: int
    servers: tuple[int, ...]
    gaps: tuple[Blocks, ...]
    rows: tuple[Row, ...]


class AuditView(View):
    """What one audit of a session at one node found. `positions` were judged; `reasons` are what failed."""

    session: str
    node: str
    blocks: Blocks
    outcome: str
    positions: int
    w16: float
    reasons: tuple[str, ...]
    evidence: str
    at: int


class SessionView(View):
    session: str
    outcome: str
    at: int
    parts: tuple[AuditView, ...]


class Place(View):
    """Where the chain has something. `tx` is None where the index did not note it."""

    block: int
    tx: str | None


class JuryView(View):
    seats: int
    faulty: int
    correct: int
    unavailable: int


class DisputeView(View):
    id: int
    node: str
    challenger: str
    outcome: str
    slashed: str
    refund: str
    evidence: str
    evidence_uri: str
    rounds: tuple[JuryView, ...]
    opened: Place | None
    concluded: Place | None


class PenaltyView(View):
    """Stake taken from a node."""

    node: str
    reason: str
    amount: str
    place: Place


class ChallengeView(View):
    """One row demanded on chain."""

    node: str
    challenger: str
    state: str
    deadline: int
    place: Place | None


class EarningsView(View):
    """What redemptions brought a node: `net` of what was `burned`; `unclaimed` still lies in the escrow."""

    node: str
    net: str
    burned: str
    unclaimed: str
    redemptions: int
    last: Place


class Health(View):
    """Whether each source answered when last asked; `why` not is empty where it did."""

    name: str
    fresh: bool
    why: str = ""


class PlaygroundView(View):
    available: bool
    most_tokens: int = 0


class Counts(View):
    serving: int
    down: int
    nodes: int
    covered: int
    audits: int
    failed_audits: int
    sessions: int
    disputes: int
    slashed_nodes: int
    slashed: str
    earned: str


class Overview(View):
    network: str
    chain_id: int
    model: str
    model_root: str
    num_blocks: int
    head: int
    tx_url: str | None
    playground: PlaygroundView
    counts: Counts
    health: tuple[Health, ...]


T = TypeVar("T", bound=View)


class Page(View, Generic[T]):
    """`total` counts all there are."""

    total: int
    offset: int
    items: tuple[T, ...]


class Ask(BaseModel):
    """A question for the playground."""

    model_config = ConfigDict(extra="forbid")

    prompt: str
