"""Audits cannot be foreseen and can be checked; juries are drawn by stake; no unit of a slashed stake is lost."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol.beacon import BEACON_DELAY, beacon_height, choice, is_audited, ticket
from corolla_core.protocol.errors import InvalidInput, InvalidProbability
from corolla_core.protocol.ids import Address, Hash32, SessionId, address
from corolla_core.protocol.jury import (
    JURY_SIZES,
    Juror,
    Outcome,
    Vote,
    bond_split,
    capture_probability,
    draw_seats,
    pay_jury,
    slash_split,
    tally,
)
from corolla_core.protocol.units import Nectar

beacons = st.binary(min_size=32, max_size=32).map(Hash32)
sessions = st.binary(min_size=16, max_size=16).map(SessionId)
chances = st.integers(0, 10**9).map(lambda n: Fraction(n, 10**9))
accounts = st.binary(min_size=20, max_size=20).map(address)
amounts = st.integers(0, 10**30).map(Nectar)
juries = st.lists(
    st.builds(Juror, accounts, accounts, st.integers(1, 10**27).map(Nectar)),
    min_size=1,
    max_size=12,
    unique_by=lambda juror: juror.account,
)
votes = st.lists(st.sampled_from(Vote), max_size=23)


def beacon(n: int) -> Hash32:
    return Hash32(sha256(n.to_bytes(8, "big")).digest())


def session(n: int) -> SessionId:
    return SessionId(n.to_bytes(16, "big"))


# --- the beacon


@given(beacons, sessions, chances, chances)
def test_who_is_audited_at_p_is_audited_at_every_larger_p(b: Hash32, s: SessionId, p: Fraction, q: Fraction) -> None:
    low, high = sorted((p, q))
    assert is_audited(b, s, high) or not is_audited(b, s, low)
    assert is_audited(b, s, Fraction(1))
    assert not is_audited(b, s, Fraction(0))


@given(beacons, sessions)
def test_the_draw_is_exact_at_the_ticket_itself(b: Hash32, s: SessionId) -> None:
    own = ticket(b, s)
    assert not is_audited(b, s, Fraction(own, 2**256))
    assert is_audited(b, s, Fraction(own + 1, 2**256))


@pytest.mark.parametrize("p", [Fraction(1, 100), Fraction(1, 20), Fraction(1, 2)])
def test_the_share_of_sessions_audited_is_the_probability(p: Fraction) -> None:
    n = 20_000
    drawn = sum(is_audited(beacon(1), session(i), p) for i in range(n))
    assert abs(drawn - n * p) < 5 * (n * p * (1 - p)) ** 0.5


def test_what_one_beacon_drew_says_nothing_about_the_next() -> None:
    p = Fraction(1, 4)
    once = [is_audited(beacon(1), session(i), p) for i in range(8_000)]
    again = [is_audited(beacon(2), session(i), p) for i in range(8_000)]
    both = sum(a and b for a, b in zip(once, again, strict=True))
    assert abs(both - 500) < 5 * (8_000 * (1 / 16) * (15 / 16)) ** 0.5


def test_an_attacker_cannot_pick_a_session_id_that_the_next_beacon_spares() -> None:
    """The ids best hidden from one beacon are audited by the next as often as any other."""
    p = Fraction(1, 10)
    hidden = sorted(range(20_000), key=lambda i: ticket(beacon(1), session(i)))[-2_000:]
    drawn = sum(is_audited(beacon(2), session(i), p) for i in hidden)
    assert abs(drawn - 200) < 5 * (2_000 * 0.09) ** 0.5


@given(beacons, sessions, st.integers(1, 1000))
def test_a_choice_is_in_range_and_the_same_for_everyone(b: Hash32, s: SessionId, count: int) -> None:
    assert 0 <= choice(b, s, b"hop", count) < count
    assert choice(b, s, b"hop", count) == choice(b, s, b"hop", count)


def test_choices_are_even_and_independent_of_the_purpose() -> None:
    hops = [choice(beacon(3), session(i), b"hop", 6) for i in range(6_000)]
    rows = [choice(beacon(3), session(i), b"row", 6) for i in range(6_000)]
    assert all(abs(n - 1_000) < 150 for n in Counter(hops).values())
    assert abs(sum(a == b for a, b in zip(hops, rows, strict=True)) - 1_000) < 150


@given(st.integers(0, 2**40))
def test_the_beacon_is_a_block_that_does_not_exist_when_receipts_are_committed(height: int) -> None:
    assert beacon_height(height) - height == BEACON_DELAY > 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: is_audited(Hash32(b"short"), session(1), Fraction(1)),
        lambda: is_audited(beacon(1), SessionId(b""), Fraction(1)),
        lambda: choice(beacon(1), session(1), b"", 0),
        lambda: choice(beacon(1), session(1), b"", 2**64),
        lambda: beacon_height(-1),
    ],
)
def test_a_malformed_draw_is_refused(call: object) -> None:
    with pytest.raises(InvalidInput):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("p", [0.05, Fraction(3, 2), -1])
def test_an_audit_probability_is_exact_and_at_most_one(p: object) -> None:
    with pytest.raises(InvalidProbability):
        is_audited(beacon(1), session(1), p)  # type: ignore[arg-type]


# --- votes


@given(votes, st.integers(0, 10))
def test_nothing_is_decided_without_more_than_half_of_all_seats(cast: list[Vote], absent: int) -> None:
    seats = max(1, len(cast) + absent)
    outcome = tally(cast, seats)
    counts = Counter(cast)
    if outcome is Outcome.DRAW:
        assert all(2 * n <= seats for n in counts.values())
    else:
        assert 2 * counts[Vote(outcome.value)] > seats


@given(votes.filter(len), st.randoms())
def test_the_order_of_votes_changes_nothing(cast: list[Vote], rng: object) -> None:
    shuffled = list(cast)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert tally(shuffled, len(cast)) is tally(cast, len(cast))


def test_a_tie_is_a_draw_and_so_is_a_jury_that_stays_away() -> None:
    assert tally([Vote.FAULTY, Vote.FAULTY, Vote.CORRECT, Vote.CORRECT], 5) is Outcome.DRAW
    assert tally([Vote.FAULTY, Vote.CORRECT], 2) is Outcome.DRAW
    assert tally([Vote.FAULTY, Vote.FAULTY], 5) is Outcome.DRAW
    assert tally([], 5) is Outcome.DRAW
    assert tally([Vote.FAULTY] * 3 + [Vote.UNAVAILABLE] * 2, 5) is Outcome.FAULTY
    with pytest.raises(InvalidInput):
        tally([Vote.FAULTY] * 6, 5)


# --- seats


@given(beacons, juries, st.sampled_from(JURY_SIZES), st.randoms())
def test_the_same_seed_seats_the_same_jury_in_whatever_order_jurors_are_listed(
    seed: Hash32, jurors: list[Juror], seats: int, rng: object
) -> None:
    shuffled = list(jurors)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    drawn = draw_seats(seed, jurors, seats)
    assert drawn == draw_seats(seed, shuffled, seats)
    assert len(drawn) == seats
    assert set(drawn) <= {juror.account for juror in jurors}


@given(beacons, juries, st.data())
def test_an_excluded_owner_never_sits(seed: Hash32, jurors: list[Juror], data: st.DataObject) -> None:
    excluded = data.draw(st.sets(st.sampled_from([juror.owner for juror in jurors])))
    owners = {juror.account: juror.owner for juror in jurors}
    if excluded >= set(owners.values()):
        with pytest.raises(InvalidInput):
            draw_seats(seed, jurors, 5, excluded=excluded)
        return
    assert all(owners[seat] not in excluded for seat in draw_seats(seed, jurors, 11, excluded=excluded))


def account(n: int) -> Address:
    return address(n.to_bytes(20, "big"))


def test_seats_fall_by_stake() -> None:
    jurors = [Juror(account(n), account(n), Nectar(stake)) for n, stake in ((1, 50), (2, 30), (3, 20), (4, 0))]
    seats = Counter(seat for n in range(200) for seat in draw_seats(beacon(n), jurors, 23))
    total = 200 * 23
    for juror in jurors[:3]:
        assert abs(seats[juror.account] / total - juror.stake / 100) < 0.03
    assert account(4) not in seats


def test_splitting_a_stake_over_many_jurors_buys_no_seats() -> None:
    whole = [Juror(account(1), account(1), Nectar(500)), Juror(account(2), account(2), Nectar(500))]
    split = [whole[0], *(Juror(account(10 + n), account(2), Nectar(50)) for n in range(10))]
    one = sum(seat == account(1) for n in range(200) for seat in draw_seats(beacon(n), whole, 23))
    many = sum(seat == account(1) for n in range(200) for seat in draw_seats(beacon(n + 200), split, 23))
    assert abs(one - many) < 5 * (2 * 200 * 23 * 0.25) ** 0.5


@pytest.mark.parametrize(
    ("jurors", "seats"),
    [
        ([], 5),
        ([Juror(account(1), account(1), Nectar(0))], 5),
        ([Juror(account(1), account(1), Nectar(1))] * 2, 5),
        ([Juror(account(1), account(1), Nectar(-1))], 5),
        ([Juror(account(1), account(1), Nectar(1))], 0),
    ],
)
def test_a_jury_of_nobody_is_refused(jurors: list[Juror], seats: int) -> None:
    with pytest.raises(InvalidInput):
        draw_seats(beacon(1), jurors, seats)


# --- capture


@given(st.integers(0, 499).map(lambda n: Fraction(n, 1000)))
def test_a_minority_wins_larger_juries_less_often(bought: Fraction) -> None:
    five, eleven, last = (capture_probability(bought, seats) for seats in JURY_SIZES)
    assert five >= eleven >= last


@given(chances, chances, st.sampled_from(JURY_SIZES))
def test_more_stake_never_captures_less(p: Fraction, q: Fraction, seats: int) -> None:
    low, high = sorted((p.limit_denominator(1000), q.limit_denominator(1000)))
    assert capture_probability(low, seats) <= capture_probability(high, seats)


@given(st.integers(0, 100).map(lambda n: Fraction(n, 100)), st.sampled_from(JURY_SIZES))
def test_on_an_odd_jury_somebody_wins(p: Fraction, seats: int) -> None:
    assert capture_probability(p, seats) + capture_probability(1 - p, seats) == 1


def test_capture_by_hand() -> None:
    assert capture_probability(Fraction(1, 2), 5) == Fraction(1, 2)
    assert capture_probability(Fraction(1, 10), 3) == Fraction(28, 1000)


# --- the slashed stake


@given(amounts, amounts, st.data())
def test_a_slash_is_split_to_the_last_unit(slashed: Nectar, owed: Nectar, data: st.DataObject) -> None:
    challenger_share = data.draw(st.integers(0, 3000).map(lambda n: Fraction(n, 10_000)))
    jury_share = data.draw(st.integers(0, 2000).map(lambda n: Fraction(n, 10_000)))
    split = slash_split(slashed, owed=owed, challenger_share=challenger_share, jury_share=jury_share)
    assert split.challenger + split.jury + split.refund + split.burned == slashed
    assert 10 * split.challenger <= 3 * slashed
    assert 5 * split.jury <= slashed
    assert split.refund <= owed
    assert min(split.challenger, split.jury, split.refund, split.burned) >= 0
    assert split.burned == 0 or split.refund == owed


@given(amounts, amounts)
def test_who_slashes_itself_as_challenger_and_jury_loses_half_at_least(slashed: Nectar, owed: Nectar) -> None:
    split = slash_split(slashed, owed=owed)
    assert 2 * (split.challenger + split.jury) <= slashed


@pytest.mark.parametrize(
    "over", [{"challenger_share": Fraction(31, 100)}, {"jury_share": Fraction(21, 100)}, {"owed": Nectar(-1)}]
)
def test_a_split_beyond_its_bounds_is_refused(over: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        slash_split(Nectar(100), **({"owed": Nectar(0)} | over))  # type: ignore[arg-type]


@given(amounts)
def test_a_false_accusers_bond_goes_half_to_the_node(bond: Nectar) -> None:
    split = bond_split(bond)
    assert split.node + split.jury == bond
    assert 0 <= split.jury - split.node <= 1


@given(amounts, juries, st.sampled_from(JURY_SIZES), st.data())
def test_the_jurys_pot_is_paid_in_equal_parts_and_nothing_is_lost(
    pot: Nectar, jurors: list[Juror], seats: int, data: st.DataObject
) -> None:
    drawn = draw_seats(beacon(seats), jurors, seats)
    coherent = data.draw(st.sets(st.sampled_from(drawn)))
    paid, left = pay_jury(pot, drawn, coherent)
    assert sum(paid.values()) + left == pot
    assert set(paid) == coherent
    held = Counter(drawn)
    assert len({paid[one] // held[one] for one in coherent}) <= 1
    assert left < sum(held[one] for one in coherent) or not coherent
