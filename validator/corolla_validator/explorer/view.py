"""From what is known to what is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from corolla_core.chain.disputes import Outcome as JuryOutcome
from corolla_core.chain.disputes import Vote
from corolla_core.chain.justice import DisputeState, RoundState
from corolla_core.chain.state import NodeState as Registered
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.reputation import SCORE_ONE
from corolla_core.protocol.suspicion import Suspicion
from corolla_core.protocol.units import nectar_to_text
from corolla_core.protocol.verdict import Outcome
from corolla_core.store.validator_store import AuditRecord
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_validator.explorer.books import Shelf
from corolla_validator.explorer.ledger import At, Ledger
from corolla_validator.explorer.models import (
    AuditView,
    Blocks,
    ChallengeView,
    Coverage,
    DisputeView,
    EarningsView,
    JuryView,
    LastAudit,
    NodeView,
    PenaltyView,
    Place,
    Row,
    SessionView,
    State,
    Tally,
)
from corolla_validator.explorer.pulse import Beat, Pulse

MOST_KEPT = 1000
"""Of the latest audits, sessions and the like: what is older is in the books."""
_NO_STAKE = Registered(Address(""), b"", 0)


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is known at one moment: `now` in Unix milliseconds, `tick` in seconds of the clock of `beats`.
    `min_stake` is what the registry asks of a node."""

    now: int
    tick: float
    ledger: Ledger
    sightings: Mapping[Address, Announcement] = field(default_factory=dict)
    beats: Mapping[Address, Beat] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=Shelf)
    min_stake: int = 0


def state_of(
    node: Announcement | None, pulse: Pulse, registered: Registered | None, *, now: int, min_stake: int
) -> State:
    """What a node is to a client that looks for one at `now` (Unix milliseconds)."""
    if registered is not None and registered.tombstoned:
        return State.EXPELLED
    if registered is not None and registered.jailed_until * 1000 > now:
        return State.JAILED
    if node is None or node.state is NodeState.OFFLINE:
        return State.AWAY
    if node.expires_at <= now or pulse is Pulse.SILENT:
        return State.DOWN
    if (registered.stake if registered is not None else 0) < min_stake:
        return State.UNSTAKED
    if node.state is not NodeState.ONLINE:
        return State(node.state.value)
    return State.CHECKING if pulse is Pulse.UNKNOWN else State.SERVING


def node_views(sight: Sight) -> tuple[NodeView, ...]:
    """Every node that announced itself or registered, in the order of their blocks; those without any come last."""
    chain, shelf = sight.ledger.state, sight.shelf
    found = []
    for account in sight.sightings.keys() | chain.nodes.keys():
        node, registered = sight.sightings.get(account), chain.nodes.get(account)
        held = registered or _NO_STAKE
        beat = sight.beats.get(account)
        pulse = Pulse.UNKNOWN if beat is None else beat.pulse(sight.tick)
        state = state_of(node, pulse, registered, now=sight.now, min_stake=sight.min_stake)
        rated, settled = shelf.rated.get(account), chain.justice.scores.get(account)
        earned = sight.ledger.earned.get(account)
        jailed = state is State.JAILED
        view = NodeView(
            account=account,
            state=state,
            sessions=beat.sessions if beat is not None and pulse is Pulse.ANSWERS else None,
            stake=nectar_to_text(held.stake),
            unbonding=nectar_to_text(held.unbonding),
            slashed=nectar_to_text(sight.ledger.slashed.get(account, 0)),
            jailed_until=held.jailed_until if jailed else None,
            earned=nectar_to_text(earned.amount - earned.burned if earned is not None else 0),
            score=None if settled is None else round(settled.score / SCORE_ONE, 4),
            own_score=None if rated is None else round(rated.score / SCORE_ONE, 4),
            probation=rated is None or rated.probation,
            standing=shelf.suspicions.get(account, Suspicion()).standing.value,
            weights=_weights(shelf, account),
            audits=_tally(shelf, account),
            last_audit=_last_audit(shelf, account),
        )
        found.append(view if node is None else view.model_copy(update=_announced(node)))
    return tuple(sorted(found, key=_by_blocks))


def coverage(num_blocks: int, nodes: Iterable[NodeView]) -> Coverage:
    """Blocks by who serves them. A node that was not heard yet is believed for the moment.
    Blocks that a node claims and the model does not have are left out."""
    rows = [
        Row(account=n.account, state=n.state, blocks=Blocks(start=n.blocks.start, end=min(n.blocks.end, num_blocks)))
        for n in nodes
        if n.blocks is not None and n.blocks.start < num_blocks and n.state is not State.AWAY
    ]
    servers = [0] * num_blocks
    for row in rows:
        if row.state in (State.SERVING, State.CHECKING):
            for block in range(row.blocks.start, row.blocks.end):
                servers[block] += 1
    gaps = runs([block for block, count in enumerate(servers) if count == 0])
    return Coverage(num_blocks=num_blocks, servers=tuple(servers), gaps=gaps, rows=tuple(rows))


def runs(blocks: Sequence[int]) -> tuple[Blocks, ...]:
    """Ascending numbers as ranges: 1, 2, 5 → 1 to 2, 5."""
    found: list[Blocks] = []
    for block in blocks:
        if found and found[-1].end == block:
            found[-1] = Blocks(start=found[-1].start, end=block + 1)
        else:
            found.append(Blocks(start=block, end=block + 1))
    return tuple(found)


def audit_views(shelf: Shelf) -> tuple[AuditView, ...]:
    """Newest first."""
    return tuple(_audit(record) for record in shelf.audits[: -MOST_KEPT - 1 : -1])


def session_views(shelf: Shelf) -> tuple[SessionView, ...]:
    """The sessions that the latest audits are of, each with what was found at its nodes, newest first."""
    parts: dict[str, list[AuditView]] = {}
    for audit in audit_views(shelf):
        parts.setdefault(audit.session, []).append(audit)
    return tuple(
        SessionView(
            session=session,
            outcome=_worst(part.outcome for part in found),
            at=max(part.at for part in found),
            parts=tuple(sorted(found, key=lambda part: (part.blocks.start, part.blocks.end, part.node))),
        )
        for session, found in parts.items()
    )


def dispute_views(ledger: Ledger) -> tuple[DisputeView, ...]:
    disputes = ledger.state.justice.disputes
    return tuple(_dispute(ledger, number, disputes[number]) for number in sorted(disputes, reverse=True)[:MOST_KEPT])


def penalty_views(ledger: Ledger) -> tuple[PenaltyView, ...]:
    by_receipt = {d.receipt_hash: number for number, d in ledger.state.justice.disputes.items()}
    return tuple(
        PenaltyView(
            node=each.node,
            reason=_reason(each.fault, by_receipt),
            amount=nectar_to_text(each.amount),
            place=place(each.at),
        )
        for each in ledger.penalties[: -MOST_KEPT - 1 : -1]
    )


def challenge_views(ledger: Ledger) -> tuple[ChallengeView, ...]:
    """Newest first: they are kept in the order they were made."""
    found = list(ledger.state.justice.openings.items())[: -MOST_KEPT - 1 : -1]
    return tuple(
        ChallengeView(
            node=opening.node,
            challenger=opening.challenger,
            state="punished" if opening.punished else opening.state.name.lower(),
            deadline=opening.deadline,
            place=place(ledger.challenged[key]) if key in ledger.challenged else None,
        )
        for key, opening in found
    )


def earning_views(ledger: Ledger) -> tuple[EarningsView, ...]:
    """Who got most comes first."""
    ranked = sorted(ledger.earned.items(), key=lambda item: (item[1].burned - item[1].amount, item[0]))
    return tuple(
        EarningsView(
            node=payee,
            net=nectar_to_text(earned.amount - earned.burned),
            burned=nectar_to_text(earned.burned),
            unclaimed=nectar_to_text(ledger.state.payees.get(payee, 0)),
            redemptions=earned.redemptions,
            last=place(earned.last),
        )
        for payee, earned in ranked
    )


def place(at: At) -> Place:
    return Place(block=at.block, tx=None if at.tx is None else "0x" + at.tx.hex())


def _announced(node: Announcement) -> dict[str, object]:
    return {
        "blocks": Blocks(start=node.span.start, end=node.span.end),
        "host": f"{node.host}:{node.port}",
        "peer_id": node.peer_id,
        "numeric_class": node.numeric_class.value,
        "wires": node.wire_dtypes,
        "tokens_per_second": node.throughput / 1000,
        "price_per_1000": nectar_to_text(node.price.of(node.span, 1000)),
    }


def _by_blocks(view: NodeView) -> tuple[bool, int, int, str]:
    blocks = view.blocks
    return (True, 0, 0, view.account) if blocks is None else (False, blocks.start, blocks.end, view.account)


def _tally(shelf: Shelf, account: Address) -> Tally:
    found = shelf.tallies.get(account, {})
    return Tally(**{outcome.value: count for outcome, count in found.items()})


def _last_audit(shelf: Shelf, account: Address) -> LastAudit | None:
    record = shelf.last.get(account)
    return None if record is None else LastAudit(outcome=record.verdict.outcome.value, at=record.audited_at)


def _weights(shelf: Shelf, account: Address) -> str:
    held, doubted = shelf.weights.get(account, (None, False))
    if held is None:
        return "not asked"
    return "in doubt" if doubted else held.value


def _audit(record: AuditRecord) -> AuditView:
    return AuditView(
        session=record.session.hex(),
        node=record.node,
        blocks=Blocks(start=record.span.start, end=record.span.end),
        outcome=record.verdict.outcome.value,
        positions=record.statistics.positions,
        w16=record.statistics.w16_max,
        reasons=tuple(f"{r.test} {r.measured:.3g} over {r.limit:.3g}" for r in record.verdict.reasons),
        evidence=record.evidence.hex(),
        at=record.audited_at,
    )


def _worst(outcomes: Iterable[str]) -> str:
    found = set(outcomes)
    return next(o.value for o in (Outcome.FAILED, Outcome.UNDECIDED, Outcome.PASSED) if o.value in found)


def _dispute(ledger: Ledger, number: int, dispute: DisputeState) -> DisputeView:
    opened, concluded = ledger.opened.get(number), ledger.concluded.get(number)
    return DisputeView(
        id=number,
        node=dispute.node,
        challenger=dispute.challenger,
        outcome=JuryOutcome(dispute.outcome).name.lower(),
        slashed=nectar_to_text(dispute.slashed),
        refund=nectar_to_text(dispute.refund),
        evidence=dispute.evidence_hash.hex(),
        evidence_uri=dispute.evidence_uri,
        rounds=tuple(_jury(each) for each in dispute.rounds),
        opened=None if opened is None else place(opened),
        concluded=None if concluded is None else place(concluded),
    )


def _jury(jury: RoundState) -> JuryView:
    return JuryView(
        seats=sum(jury.seats.values()),
        faulty=jury.said(Vote.FAULTY),
        correct=jury.said(Vote.CORRECT),
        unavailable=jury.said(Vote.UNAVAILABLE),
    )


def _reason(fault: Hash32, by_receipt: Mapping[Hash32, int]) -> str:
    if fault in by_receipt:
        return f"jury, dispute {by_receipt[fault]}"
    name = fault.rstrip(b"\0")
    return name.decode() if name.isascii() and name.decode().isprintable() else "0x" + fault.hex()
