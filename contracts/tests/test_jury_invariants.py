"""Juries over random histories: money adds up, nobody is slashed without a majority, every dispute ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from brownie import accounts, chain
from jury_world import (
    APPEAL,
    APPEALING,
    BOND,
    CHALLENGER,
    COMMITTING,
    CONCLUDABLE,
    CONCLUDED,
    CORRECT,
    DRAWING,
    DRAWN,
    FAULTY,
    JUROR_UNBONDING,
    JURORS,
    NODE,
    NONE,
    OWNER,
    REVEALING,
    SEAT_STAKE,
    UNAVAILABLE,
    bond_of,
    mirror,
)
from walk import seeds, walk
from world import now, pass_time, reverts, signer

MOST_OPEN = 3
LATECOMERS = (2, 3)
EVERYBODY = (*JURORS, *LATECOMERS)


@dataclass
class Seats:
    """A juror's ballot as the machine knows it."""

    number: int
    locked: int
    penalty: int
    sealed: int = NONE
    vote: int = NONE
    settled: bool = False


@dataclass
class Case:
    """A dispute as the machine knows it: who was drawn in each round, and who put up which bond."""

    id: int
    frozen: list[tuple[str, str, int]]
    rounds: list[dict[int, Seats]] = field(default_factory=lambda: [{}])
    bonds: list[tuple[int, int]] = field(default_factory=list)
    outcome: int = 0
    reward: int = 0

    def tally(self) -> dict[int, int]:
        """Revealed seats of the last round by vote."""
        votes = dict.fromkeys((CORRECT, FAULTY, UNAVAILABLE), 0)
        for seats in self.rounds[-1].values():
            if seats.vote != NONE:
                votes[seats.vote] += seats.number
        return votes

    def verdict(self) -> int:
        votes = self.tally()
        return next((vote for vote, seats in votes.items() if 2 * seats > sum(votes.values())), DRAWN)

    def wins(self, seats: Seats) -> bool:
        return seats.vote == self.outcome

    def loses(self, seats: Seats) -> bool:
        return seats.vote == NONE if self.outcome == DRAWN else seats.vote != self.outcome

    def unsettled(self):
        return [(juror, seats) for jury in self.rounds for juror, seats in jury.items() if not seats.settled]


class JuryMachine:
    def __init__(self, jury):
        self.jury, self.disputes, self.pool = jury, jury.disputes, jury.pool
        for account in (CHALLENGER, OWNER, *EVERYBODY):
            jury.token.transfer(accounts[account], 10**5 * BOND, {"from": accounts[0]})
            for spender in (jury.pool, jury.disputes):
                jury.token.approve(spender, 2**255, {"from": accounts[account]})
        self.order = list(JURORS)
        self.stake = {juror: jury.juror(juror)["stake"] for juror in JURORS} | dict.fromkeys(LATECOMERS, 0)
        self.unbonding = dict.fromkeys(EVERYBODY, 0)
        self.node_stake = jury.registry.nodeOf(accounts[NODE])["stake"]
        self.cases: list[Case] = []

    # ---- arguments ----

    def draw_case(self, rng):
        return rng.randrange(max(1, len(self.cases)))

    def draw_juror(self, rng):
        return rng.choice(EVERYBODY)

    def draw_seats(self, rng):
        return rng.randint(1, 12)

    def draw_votes(self, rng):
        """What everybody would vote: mostly one mind, so that rounds are decided; 0 stays away."""
        mind = rng.choice((CORRECT, FAULTY, FAULTY, UNAVAILABLE))
        return {juror: rng.choice((mind, mind, mind, CORRECT, FAULTY, NONE)) for juror in EVERYBODY}

    # ---- a dispute's way ----

    def rule_accuse(self):
        if sum(case.outcome == 0 for case in self.cases) >= MOST_OPEN or self.node_stake == 0:
            return
        frozen = [(accounts[j].address, accounts[j].address, self.stake[j]) for j in self.order]
        receipt = self.jury.receipt()
        accusation = (accounts[NODE], receipt, signer(NODE).sign(receipt), receipt, "", bytes(32), 0)
        self.disputes.accuse(accusation, {"from": accounts[CHALLENGER]})
        self.cases.append(Case(len(self.cases) + 1, frozen, bonds=[(CHALLENGER, BOND)]))

    def rule_draw(self, case):
        case = self.at(case, DRAWING, lambda id_: self.disputes.draw(id_, {"from": accounts[0]}))
        if case is None:
            return
        number = len(case.rounds) - 1
        chain.mine(1)
        drawn = self.jury.drawn(self.disputes.draw(case.id, {"from": accounts[0]}))
        seed_block = self.disputes.roundOf(case.id, number)["seedBlock"]
        expected = mirror(seed_block, self.disputes, case.id, number, case.frozen, set())
        assert {accounts[juror].address: seats for juror, seats in drawn.items()} == expected
        for juror, seats in drawn.items():
            free = self.stake[juror] + self.unbonding[juror] - self.locked(juror)
            locked = min(free, seats * SEAT_STAKE)
            case.rounds[-1][juror] = Seats(seats, locked, locked // 10)

    def rule_commit(self, case, votes):
        call = lambda id_: self.disputes.commit(id_, b"\1" * 32, {"from": accounts[JURORS[0]]})  # noqa: E731
        case = self.at(case, COMMITTING, call)
        for juror, seats in case.rounds[-1].items() if case else ():
            if votes[juror] != NONE:
                self.jury.commit(case.id, juror, votes[juror])
                seats.sealed = votes[juror]

    def rule_reveal(self, case):
        call = lambda id_: self.jury.reveal(id_, JURORS[0], FAULTY)  # noqa: E731
        case = self.at(case, REVEALING, call)
        for juror, seats in case.rounds[-1].items() if case else ():
            if seats.sealed != NONE and seats.vote == NONE:
                self.jury.reveal(case.id, juror, seats.sealed)
                seats.vote = seats.sealed

    def rule_appeal(self, case):
        case = self.at(case, APPEALING, lambda id_: self.disputes.appeal(id_, {"from": accounts[OWNER]}))
        if case is None:
            return
        loser = OWNER if case.verdict() == FAULTY else CHALLENGER
        self.disputes.appeal(case.id, {"from": accounts[loser]})
        case.bonds.append((loser, bond_of(len(case.rounds))))
        case.rounds.append({})

    def rule_conclude(self, case):
        case = self.at(case, CONCLUDABLE, lambda id_: self.disputes.conclude(id_, {"from": accounts[0]}))
        if case is not None:
            self.conclude(case)

    def rule_time_passes(self, case):
        """To the end of the dispute's present phase."""
        if case < len(self.cases):
            self.end_phase(self.cases[case])

    def rule_settle(self, case, juror):
        if case < len(self.cases) and self.cases[case].outcome:
            self.settle(self.cases[case], [juror])

    # ---- stake ----

    def rule_add_stake(self, juror, seats):
        amount = seats * SEAT_STAKE
        if juror in self.order:
            self.pool.addStake(accounts[juror], amount, {"from": accounts[juror]})
        else:
            self.pool.join(accounts[juror], amount, {"from": accounts[juror]})
            self.order.append(juror)
        self.stake[juror] += amount

    def rule_leave(self, juror):
        amount = self.stake[juror]
        if amount:
            self.pool.beginLeave(accounts[juror], amount, {"from": accounts[juror]})
            self.stake[juror] -= amount
            self.unbonding[juror] += amount

    def rule_withdraw_stake(self, juror):
        record = self.jury.juror(juror)
        if record["unbonding"] == 0:
            return
        if now() < record["unbondingAt"]:
            with reverts("StillUnbonding"):
                self.pool.withdrawStake(accounts[juror], {"from": accounts[juror]})
            return
        self.withdraw_stake(juror)

    # ---- what must hold ----

    def invariant_both_contracts_hold_exactly_what_they_owe(self):
        """Stakes less what the losers of concluded disputes forfeited; credits, open bonds and rewards not yet paid."""
        forfeited = rewards = bonds = 0
        for case in self.cases:
            if case.outcome == 0:
                bonds += sum(bond for _, bond in case.bonds)
                continue
            forfeited += sum(seats.penalty for _, seats in case.unsettled() if case.loses(seats))
            rewards += sum(seats.number * case.reward for _, seats in case.unsettled() if case.wins(seats))
        owed = sum(self.stake.values()) + sum(self.unbonding.values()) - forfeited
        assert self.jury.token.balanceOf(self.pool) == owed
        credits_ = sum(self.jury.credit(account) for account in (CHALLENGER, OWNER, *EVERYBODY))
        assert self.jury.token.balanceOf(self.disputes) == credits_ + bonds + rewards

    def invariant_stake_behind_seats_is_locked(self):
        for juror in self.order:
            record = self.jury.juror(juror)
            assert (record["stake"], record["unbonding"]) == (self.stake[juror], self.unbonding[juror])
            assert record["locked"] == self.locked(juror) <= record["stake"] + record["unbonding"]

    def invariant_the_node_lost_only_what_majorities_took(self):
        assert self.jury.registry.nodeOf(accounts[NODE])["stake"] == self.node_stake

    # ---- and in the end ----

    def finish(self):
        """Whatever happened: strangers bring every dispute to its end, and everybody gets out what is theirs."""
        for case in self.cases:
            for _ in range(9):
                if case.outcome:
                    break
                if self.disputes.phaseOf(case.id) == CONCLUDABLE:
                    self.conclude(case)
                else:
                    self.end_phase(case)
            assert self.disputes.phaseOf(case.id) == CONCLUDED
            self.settle(case, EVERYBODY)
        self.invariant_both_contracts_hold_exactly_what_they_owe()
        for account in (CHALLENGER, OWNER, *EVERYBODY):
            if self.jury.credit(account):
                self.disputes.withdraw(accounts[account], {"from": accounts[account]})
        assert self.jury.token.balanceOf(self.disputes) == 0
        for juror in self.order:
            self.rule_leave(juror)
        pass_time(now() + JUROR_UNBONDING + 1)
        for juror in self.order:
            if self.unbonding[juror]:
                self.withdraw_stake(juror)
                assert self.unbonding[juror] == 0
        assert self.jury.token.balanceOf(self.pool) == 0

    # ---- steps ----

    def at(self, index, phase, call):
        """The case if it is in this phase; else `call` must be refused, and None."""
        if index >= len(self.cases):
            return None
        case = self.cases[index]
        chain.mine(1)
        if self.disputes.phaseOf(case.id) == phase:
            return case
        with reverts("WrongPhase"):
            call(case.id)
        return None

    def conclude(self, case):
        case.outcome = case.verdict()
        votes = case.tally()
        self.disputes.conclude(case.id, {"from": accounts[0]})
        record = self.disputes.dispute(case.id)
        assert record["outcome"] == case.outcome
        case.reward = record["seatReward"]
        if case.outcome == FAULTY:
            assert 2 * votes[FAULTY] > sum(votes.values())
            self.node_stake -= self.node_stake // 2

    def settle(self, case, jurors):
        self.jury.settle(case.id, jurors)
        for juror, seats in case.unsettled():
            if juror not in jurors:
                continue
            seats.settled = True
            if case.loses(seats):
                from_stake = min(seats.penalty, self.stake[juror])
                self.stake[juror] -= from_stake
                self.unbonding[juror] -= seats.penalty - from_stake

    def end_phase(self, case):
        round_ = self.jury.current(case.id)
        phase = self.disputes.phaseOf(case.id)
        ends = {
            DRAWING: round_["drawUntil"],
            COMMITTING: round_["commitUntil"],
            REVEALING: round_["revealUntil"],
            APPEALING: round_["revealUntil"] + APPEAL,
        }
        if phase in ends:
            pass_time(max(now(), ends[phase]) + 1)

    def withdraw_stake(self, juror):
        free = self.stake[juror] + self.unbonding[juror] - self.locked(juror)
        if free == 0:
            with reverts("StakeBehindSeats"):
                self.pool.withdrawStake(accounts[juror], {"from": accounts[juror]})
            return
        amount = self.pool.withdrawStake(accounts[juror], {"from": accounts[juror]}).return_value
        assert amount == min(self.unbonding[juror], free)
        self.unbonding[juror] -= amount

    def locked(self, juror):
        return sum(seats.locked for case in self.cases for who, seats in case.unsettled() if who == juror)


@pytest.mark.parametrize("seed", seeds(examples_a_walk=20))
def test_juries_keep_their_promises_over_any_history(jury, seed):
    machine = JuryMachine(jury)
    machine.rule_accuse()
    walk(machine, Random(seed), steps=40)
    machine.finish()
