"""The jury's arithmetic: who sits, what their votes decide, how often it can be bought, and who gets a slashed stake.

Everything is whole numbers and exact: a contract can do the same, and anyone can check it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from hashlib import sha256
from itertools import accumulate
from math import comb

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Address, Hash32, address_bytes
from corolla_core.protocol.probability import probability
from corolla_core.protocol.units import Nectar

JURY_SIZES = (5, 11, 23)
"""Seats of the first jury and of the juries on appeal."""
MAX_CHALLENGER_SHARE = Fraction(30, 100)
MAX_JURY_SHARE = Fraction(20, 100)
_SEAT = b"corolla/jury-seat/1"


class Vote(Enum):
    CORRECT = "correct"
    FAULTY = "faulty"
    UNAVAILABLE = "unavailable"


class Outcome(Enum):
    CORRECT = "correct"
    FAULTY = "faulty"
    UNAVAILABLE = "unavailable"
    DRAW = "draw"


def tally(votes: Iterable[Vote], seats: int) -> Outcome:
    """What more than half of all seats voted for, no-shows counting as seats; a tie or anything less is a draw.

    So nobody is convicted without a majority of the jury, however many jurors stay away. Raises InvalidInput if there
    are more votes than seats.
    """
    cast = list(votes)
    if type(seats) is not int or seats < 1 or len(cast) > seats:
        raise InvalidInput(f"{len(cast)} votes on {seats!r:.40} seats")
    for vote in Vote:
        if 2 * cast.count(vote) > seats:
            return Outcome(vote.value)
    return Outcome.DRAW


@dataclass(frozen=True, slots=True)
class Juror:
    """A validator that may sit: its `account`, who owns it, and its `stake` frozen before the seed was known."""

    account: Address
    owner: Address
    stake: Nectar


def draw_seats(
    seed: Hash32, jurors: Sequence[Juror], seats: int, *, excluded: Collection[Address] = ()
) -> tuple[Address, ...]:
    """`seats` jurors by stake, with replacement: one who holds half of the stake holds half of the seats on average.

    Seat i falls on stake unit `SHA-256(tag ‖ seed ‖ i) mod total` (bias below total / 2**256), counted through the
    jurors in the order of their accounts, so that the order they are given in changes nothing. Jurors whose owner is
    in `excluded` (the accused's, the challenger's) do not sit. Raises InvalidInput if nobody is left, or an account
    comes twice.
    """
    if len(seed) != 32 or type(seats) is not int or not 0 < seats <= 1024:
        raise InvalidInput("a jury is drawn from a seed of 32 bytes, for 1 to 1024 seats")
    if len({juror.account for juror in jurors}) != len(jurors) or any(juror.stake < 0 for juror in jurors):
        raise InvalidInput("jurors have one account and one stake each")
    eligible = sorted(
        (juror for juror in jurors if juror.owner not in excluded and juror.stake > 0),
        key=lambda juror: address_bytes(juror.account),
    )
    ends = list(accumulate(juror.stake for juror in eligible))
    if not ends:
        raise InvalidInput("nobody is left to sit on the jury")
    tickets = (sha256(_SEAT + seed + i.to_bytes(4, "big")).digest() for i in range(seats))
    return tuple(eligible[bisect_right(ends, int.from_bytes(t, "big") % ends[-1])].account for t in tickets)


def capture_probability(bought: Fraction, seats: int) -> Fraction:
    """ε: how often the holders of the share `bought` of the stake win more than half of `seats`, exactly.

    Who loses a round appeals, so the last round decides: ε of the protocol is that of its largest jury.
    """
    share = probability("bought", bought)
    if type(seats) is not int or not 0 < seats <= 1024:
        raise InvalidInput(f"not a jury: {seats!r:.40} seats")
    won = range(seats // 2 + 1, seats + 1)
    return sum((comb(seats, k) * share**k * (1 - share) ** (seats - k) for k in won), Fraction(0))


@dataclass(frozen=True, slots=True)
class SlashSplit:
    """Where a slashed amount goes, in base units; the four add up to it exactly."""

    challenger: Nectar
    jury: Nectar
    refund: Nectar
    burned: Nectar


def slash_split(
    slashed: Nectar,
    *,
    owed: Nectar,
    challenger_share: Fraction = MAX_CHALLENGER_SHARE,
    jury_share: Fraction = MAX_JURY_SHARE,
) -> SlashSplit:
    """The challenger's and the jury's shares rounded down, up to `owed` to the harmed client, and the rest burned.

    Raises InvalidInput for negative amounts or shares above 30 % and 20 %: what is not burned or refunded must stay
    too little for an attacker to slash itself with profit.
    """
    if type(slashed) is not int or type(owed) is not int or slashed < 0 or owed < 0:
        raise InvalidInput("slashed and owed are whole numbers of base units")
    if (
        probability("challenger_share", challenger_share) > MAX_CHALLENGER_SHARE
        or probability("jury_share", jury_share) > MAX_JURY_SHARE
    ):
        raise InvalidInput("at most 30 % go to the challenger and 20 % to the jury")
    challenger = int(slashed * challenger_share)
    jury = int(slashed * jury_share)
    refund = min(owed, slashed - challenger - jury)
    return SlashSplit(Nectar(challenger), Nectar(jury), Nectar(refund), Nectar(slashed - challenger - jury - refund))


@dataclass(frozen=True, slots=True)
class BondSplit:
    """Where the bond of a challenger that accused falsely goes: half to the node, the rest to the jury."""

    node: Nectar
    jury: Nectar


def bond_split(bond: Nectar) -> BondSplit:
    """Half to the node, rounded down, the rest to the jury. Raises InvalidInput for a negative bond."""
    if type(bond) is not int or bond < 0:
        raise InvalidInput("a bond is a whole number of base units")
    return BondSplit(Nectar(bond // 2), Nectar(bond - bond // 2))


def pay_jury(pot: Nectar, seats: Sequence[Address], coherent: Collection[Address]) -> tuple[dict[Address, Nectar], int]:
    """`(what each coherent juror gets, what is left to burn)`: the pot in equal parts a seat that voted with it.

    A juror with several seats gets several parts; parts are rounded down. Raises InvalidInput for a negative pot.
    """
    if type(pot) is not int or pot < 0:
        raise InvalidInput("a pot is a whole number of base units")
    winners = [seat for seat in seats if seat in coherent]
    if not winners:
        return {}, pot
    part = pot // len(winners)
    paid: dict[Address, Nectar] = {}
    for seat in winners:
        paid[seat] = Nectar(paid.get(seat, 0) + part)
    return paid, pot - part * len(winners)
