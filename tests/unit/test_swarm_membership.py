"""Whom a private swarm admits: nobody the contract did not attest, whatever is asked, said, late or broken."""

from __future__ import annotations

import pytest
from fake_operators import Clock, FakeOperators
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address, address
from corolla_core.swarm.membership import FRESH_SECONDS, MOST_AT_ONCE, TRUST_SECONDS, WANTED_SECONDS, Membership, member

pytestmark = pytest.mark.anyio
ANN, BOB, EVE = (address(bytes([n]) * 20) for n in (1, 2, 3))


async def test_only_the_attested_are_admitted_and_an_answer_is_asked_for_once() -> None:
    operators, clock = FakeOperators(ANN), Clock()
    membership = Membership(operators, clock=clock)
    assert not membership.admitted(ANN)  # nobody was asked yet
    assert await membership.among([ANN, EVE]) == {ANN}
    assert await membership.among([EVE, ANN]) == {ANN}
    assert operators.asked == [[ANN, EVE]]
    assert membership.admitted(ANN)
    assert not membership.admitted(EVE)


async def test_a_revocation_is_seen_within_seconds_by_who_asks_and_by_who_watches() -> None:
    operators, clock = FakeOperators(ANN, BOB), Clock()
    membership = Membership(operators, clock=clock)
    await membership.among([ANN, BOB])
    operators.members.clear()
    clock.time += FRESH_SECONDS
    assert await membership.among([ANN]) == set()
    assert membership.admitted(BOB)  # not asked about again yet
    await membership.refresh()
    assert not membership.admitted(BOB)


async def test_while_the_chain_is_silent_members_stay_for_a_minute_and_nobody_is_added() -> None:
    operators, clock = FakeOperators(ANN, BOB), Clock()
    membership = Membership(operators, clock=clock)
    await membership.among([ANN])
    operators.down = True
    clock.time += TRUST_SECONDS
    assert await membership.among([ANN, BOB]) == {ANN}
    clock.time += 0.1
    assert await membership.among([ANN, BOB]) == set()
    operators.down = False
    assert await membership.among([ANN, BOB]) == {ANN, BOB}


async def test_a_flood_of_strangers_keeps_no_member_out_and_is_forgotten() -> None:
    operators, clock = FakeOperators(ANN), Clock()
    membership = Membership(operators, clock=clock)
    await membership.among([ANN])
    clock.time += FRESH_SECONDS
    strangers = [address(number.to_bytes(20, "big")) for number in range(1000, 1000 + 5 * MOST_AT_ONCE)]
    assert await membership.among([*strangers, ANN]) == {ANN}
    assert operators.asked[-1][0] == ANN
    assert len(operators.asked[-1]) == MOST_AT_ONCE
    await membership.refresh()
    assert len(membership._asked_at) == len(membership._wanted_at) == 1
    clock.time += WANTED_SECONDS + 1
    await membership.refresh()
    assert not membership._attested_at
    assert operators.asked[-1] == [ANN]


async def test_who_is_no_member_itself_learns_so_at_once() -> None:
    async with member(FakeOperators(ANN), ANN) as membership:
        assert membership.admitted(ANN)
    with pytest.raises(ConfigError, match=EVE):
        async with member(FakeOperators(ANN), EVE):
            pass


ACCOUNTS = [address(bytes([n]) * 20) for n in range(1, 7)]
STEPS = st.one_of(
    st.tuples(st.just("ask"), st.sets(st.sampled_from(ACCOUNTS))),
    st.tuples(st.just("refresh"), st.none()),
    st.tuples(st.just("attest"), st.sampled_from(ACCOUNTS)),
    st.tuples(st.just("revoke"), st.sampled_from(ACCOUNTS)),
    st.tuples(st.just("break"), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0, 2 * TRUST_SECONDS)),
)


@given(st.lists(STEPS, max_size=40))
async def test_nobody_is_admitted_whom_the_contract_did_not_attest_within_the_minute(
    steps: list[tuple[str, object]],
) -> None:
    operators, clock = FakeOperators(), Clock()
    membership = Membership(operators, clock=clock)
    last_true = dict.fromkeys(ACCOUNTS, float("-inf"))
    for kind, what in steps:
        match kind, what:
            case "attest", str():
                operators.members.add(Address(what))
            case "revoke", str():
                operators.members.discard(Address(what))
            case "break", bool():
                operators.down = what
            case "wait", float():
                clock.time += what
        for account in operators.members:
            last_true[account] = clock.time
        if kind == "ask" and isinstance(what, set):
            admitted = await membership.among(what)
            assert admitted <= what
            if not operators.down:
                # An answer may be as old as it counts as fresh, and no older.
                assert all(clock.time - last_true[account] <= FRESH_SECONDS for account in admitted)
        if kind == "refresh":
            await membership.refresh()
            if not operators.down:
                assert all(account in operators.members for account in ACCOUNTS if membership.admitted(account))
        for account in ACCOUNTS:
            assert not membership.admitted(account) or clock.time - last_true[account] <= TRUST_SECONDS
