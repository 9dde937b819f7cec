"""Validators, who are the jurors too, and the disputes they judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from hashlib import sha256

import numpy as np

from benchmarks.market.population import Bools, Ints
from benchmarks.market.rules import Rules
from corolla_core.protocol.ids import Address, Hash32, address
from corolla_core.protocol.jury import JURY_SIZES, Juror, Outcome, Vote, capture_probability, draw_seats, tally
from corolla_core.protocol.units import Nectar


class Role(IntEnum):
    DILIGENT = 0
    LAZY = 1
    FALSE_ACCUSER = 2
    BRIBED = 3


def owner_of(machine: int) -> Address:
    """The account that owns the nodes of a machine; validators' accounts are other ones."""
    return address(b"node" + machine.to_bytes(16, "big"))


class Validators:
    """Columns of `rules.validators` rows. Who has lost a fifth of its stake is out."""

    def __init__(self, rules: Rules) -> None:
        n = rules.validators
        self.stake = np.full(n, rules.validator_stake, np.int64)
        self.wallet = np.full(n, rules.validator_wallet, np.int64)
        self.role: Ints = np.full(n, Role.DILIGENT, np.int64)
        self.role[: rules.lazy] = Role.LAZY
        self.role[rules.lazy : rules.lazy + rules.false_accusers] = Role.FALSE_ACCUSER
        self.role[n - rules.bribed :] = Role.BRIBED
        self.least = rules.validator_stake * 4 // 5
        self.accounts = [address(b"validator" + i.to_bytes(11, "big")) for i in range(n)]
        self.row = {account: i for i, account in enumerate(self.accounts)}
        self.endowed = rules.validator_stake + rules.validator_wallet

    @property
    def active(self) -> Bools:
        return self.stake >= self.least

    def draw(self, rng: np.random.Generator, count: int) -> Ints:
        """Who audits, by stake."""
        weights = np.where(self.active, self.stake, 0).astype(np.float64)
        return rng.choice(len(weights), size=count, p=weights / weights.sum())

    def jurors(self) -> list[Juror]:
        rows = np.nonzero(self.active)[0]
        return [Juror(self.accounts[i], self.accounts[i], Nectar(int(self.stake[i]))) for i in rows]

    def bribed_share(self) -> Fraction:
        """The share of the jury's stake that can be bought."""
        active = self.active
        bought = int(self.stake[active & (self.role == Role.BRIBED)].sum())
        return Fraction(bought, int(self.stake[active].sum()))


def capture(rules: Rules) -> Fraction:
    """ε at the start: how often the bribed minority wins the last jury."""
    return capture_probability(Fraction(rules.bribed, rules.validators), JURY_SIZES[-1])


@dataclass(slots=True)
class Dispute:
    """Node row `accused` by validator row `challenger`; `faulty` is what recomputing the evidence shows.

    Whoever loses a round appeals, for nothing, up to the last jury: the worst case for the honest.
    """

    number: int
    accused: int
    challenger: int
    faulty: bool
    seats: list[Address] = field(default_factory=list)
    coherent: dict[Vote, set[Address]] = field(default_factory=lambda: {vote: set() for vote in Vote})
    absent: set[Address] = field(default_factory=set)
    rounds: int = 0

    @property
    def over(self) -> bool:
        return self.rounds == len(JURY_SIZES)

    def sit(
        self, validators: Validators, owner: Address, beacon: bytes, rng: np.random.Generator, rules: Rules
    ) -> Outcome:
        """One round: seats drawn by the beacon, votes revealed, tallied."""
        size = JURY_SIZES[self.rounds]
        seed = Hash32(sha256(beacon + self.number.to_bytes(8, "big") + bytes([self.rounds])).digest())
        seats = draw_seats(seed, validators.jurors(), size, excluded=(owner, validators.accounts[self.challenger]))
        self.rounds += 1
        self.seats += seats
        truth, lie = (Vote.FAULTY, Vote.CORRECT) if self.faulty else (Vote.CORRECT, Vote.FAULTY)
        voted: dict[Address, Vote] = {}
        for juror in dict.fromkeys(seats):
            if rng.random() < rules.no_show:
                self.absent.add(juror)
                continue
            voted[juror] = lie if validators.role[validators.row[juror]] == Role.BRIBED else truth
            self.coherent[voted[juror]].add(juror)
        return tally([voted[seat] for seat in seats if seat in voted], size)
