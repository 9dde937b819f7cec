"""What became of those who cheated or were accused of it, and how nodes are scored: a fold over the chain's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from corolla_core.chain import events as on_chain
from corolla_core.chain.disputes import Outcome, Vote
from corolla_core.chain.faults import ChallengeState, Side
from corolla_core.protocol.ids import Address, Hash32


@dataclass(frozen=True, slots=True)
class OpeningState:
    """A node had until `deadline` to open one row. One that EXPIRED and was not `punished` was part of an outage that
    was."""

    node: Address
    challenger: Address
    receipt_hash: Hash32
    position: int
    side: Side
    deadline: int
    state: ChallengeState = ChallengeState.OPEN
    punished: bool = False


@dataclass(frozen=True, slots=True)
class RoundState:
    """One jury: who called it, with what bond, who has how many seats, and what each said."""

    patron: Address
    bond: int
    seats: Mapping[Address, int] = field(default_factory=dict)
    votes: Mapping[Address, Vote] = field(default_factory=dict)
    commit_until: int = 0
    reveal_until: int = 0

    def said(self, vote: Vote) -> int:
        """How many seats said so."""
        return sum(self.seats[juror] for juror, found in self.votes.items() if found is vote)


@dataclass(frozen=True, slots=True)
class DisputeState:
    """`credited` is what bonds, rewards and refunds brought to whom. `rewards` (credited too) and `penalties` are the
    jurors', over all rounds."""

    node: Address
    challenger: Address
    receipt_hash: Hash32
    evidence_hash: Hash32
    evidence_uri: str
    rounds: tuple[RoundState, ...] = ()
    outcome: Outcome = Outcome.OPEN
    slashed: int = 0
    refund: int = 0
    credited: Mapping[Address, int] = field(default_factory=dict)
    rewards: Mapping[Address, int] = field(default_factory=dict)
    penalties: Mapping[Address, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JusticeState:
    """`faults` by node and `refunds` by client, oldest first: what provable faults cost, and who got back what it had
    paid for them. `scores` are those settled last."""

    faults: Mapping[Address, tuple[on_chain.FaultPunished, ...]] = field(default_factory=dict)
    refunds: Mapping[Address, tuple[on_chain.ClientRefunded, ...]] = field(default_factory=dict)
    openings: Mapping[Hash32, OpeningState] = field(default_factory=dict)
    disputes: Mapping[int, DisputeState] = field(default_factory=dict)
    scores: Mapping[Address, on_chain.ScoreSettled] = field(default_factory=dict)


def judged(state: JusticeState, event: on_chain.JusticeEvent) -> JusticeState:
    """The state after an event. What was begun before the index starts stays unknown."""
    match event:
        case on_chain.FaultPunished(node=node):
            return replace(state, faults={**state.faults, node: (*state.faults.get(node, ()), event)})
        case on_chain.ClientRefunded(client=client):
            return replace(state, refunds={**state.refunds, client: (*state.refunds.get(client, ()), event)})
        case on_chain.ScoreSettled(node=node):
            return replace(state, scores={**state.scores, node: event})
        case on_chain.OpeningChallenged() | on_chain.OpeningAnswered() | on_chain.OpeningExpired():
            opening = _opening(state.openings.get(event.challenge_id), event)
            return (
                state if opening is None else replace(state, openings={**state.openings, event.challenge_id: opening})
            )
        case _:
            dispute = _dispute(state.disputes.get(event.id), event)
            return state if dispute is None else replace(state, disputes={**state.disputes, event.id: dispute})


def _opening(opening: OpeningState | None, event: on_chain.OpeningEvent) -> OpeningState | None:
    if isinstance(event, on_chain.OpeningChallenged):
        side = Side(event.side)
        return OpeningState(event.node, event.challenger, event.receipt_hash, event.position, side, event.deadline)
    if opening is None:
        return None
    match event:
        case on_chain.OpeningAnswered():
            return replace(opening, state=ChallengeState.ANSWERED)
        case on_chain.OpeningExpired(punished=punished):
            return replace(opening, state=ChallengeState.EXPIRED, punished=punished)
        case _:
            assert_never(event)


def _dispute(dispute: DisputeState | None, event: on_chain.DisputeEvent) -> DisputeState | None:
    if isinstance(event, on_chain.DisputeOpened):
        return DisputeState(event.node, event.challenger, event.receipt_hash, event.evidence_hash, event.evidence_uri)
    if dispute is None:
        return None
    match event:
        case on_chain.JuryCalled(patron=patron, bond=bond):
            return replace(dispute, rounds=(*dispute.rounds, RoundState(patron, bond)))
        case on_chain.JurorDrawn() | on_chain.JuryDrawn() | on_chain.VoteRevealed():
            jury = _round(dispute.rounds[event.round], event)
            return replace(dispute, rounds=(*dispute.rounds[: event.round], jury, *dispute.rounds[event.round + 1 :]))
        case on_chain.DisputeConcluded(outcome=outcome, slashed=slashed, refund=refund):
            return replace(dispute, outcome=Outcome(outcome), slashed=slashed, refund=refund)
        case on_chain.DisputeCredited(account=account, amount=amount):
            return replace(dispute, credited=_add(dispute.credited, account, amount))
        case on_chain.JurorSettled(juror=juror, reward=reward, penalty=penalty):
            return replace(
                dispute,
                rewards=_add(dispute.rewards, juror, reward),
                penalties=_add(dispute.penalties, juror, penalty),
            )
        case _:
            assert_never(event)


def _round(jury: RoundState, event: on_chain.JurorDrawn | on_chain.JuryDrawn | on_chain.VoteRevealed) -> RoundState:
    match event:
        case on_chain.JurorDrawn(juror=juror, seats=seats):
            return replace(jury, seats=_add(jury.seats, juror, seats))
        case on_chain.JuryDrawn(commit_until=commit_until, reveal_until=reveal_until):
            return replace(jury, commit_until=commit_until, reveal_until=reveal_until)
        case on_chain.VoteRevealed(juror=juror, vote=vote):
            return replace(jury, votes={**jury.votes, juror: Vote(vote)})
        case _:
            assert_never(event)


def _add(amounts: Mapping[Address, int], account: Address, amount: int) -> dict[Address, int]:
    return {**amounts, account: amounts.get(account, 0) + amount}
