"""What the explorer shows for what is known: states, coverage, and who was punished for what."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from explorer_world import BLOCKS, MIN_STAKE, STAKE, THIRDS, FakeNetwork, account, announced, audited, hashed
from hypothesis import given
from hypothesis import strategies as st

from corolla_core.chain import events as on_chain
from corolla_core.chain.indexer import Indexed
from corolla_core.chain.state import FOR_GOOD
from corolla_core.chain.state import NodeState as Registered
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Hash32
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR
from corolla_core.swarm.announcement import NodeState
from corolla_validator.explorer import view
from corolla_validator.explorer.books import shelf_of
from corolla_validator.explorer.ledger import Ledger
from corolla_validator.explorer.models import Blocks, State
from corolla_validator.explorer.pulse import SILENCE, TRIES, Beat, Pulse
from corolla_validator.explorer.sightings import REMEMBERED_MS, sighted

NOW = 1_800_000_000_000
STAKED = Registered(ZERO_ADDRESS, b"", STAKE)
ONLINE = announced(0, Span(0, 10), at=NOW)
GONE = NOW + 10**9


@pytest.mark.parametrize(
    ("node", "pulse", "registered", "at", "state"),
    [
        (ONLINE, Pulse.ANSWERS, STAKED, NOW, State.SERVING),
        (ONLINE, Pulse.UNKNOWN, STAKED, NOW, State.CHECKING),
        (ONLINE, Pulse.SILENT, STAKED, NOW, State.DOWN),
        (ONLINE, Pulse.ANSWERS, STAKED, GONE, State.DOWN),  # nobody can find it any more
        (ONLINE, Pulse.ANSWERS, None, NOW, State.UNSTAKED),
        (ONLINE, Pulse.ANSWERS, replace(STAKED, stake=MIN_STAKE - 1), NOW, State.UNSTAKED),
        (ONLINE, Pulse.ANSWERS, replace(STAKED, jailed_until=NOW // 1000 + 1), NOW, State.JAILED),
        (ONLINE, Pulse.ANSWERS, replace(STAKED, jailed_until=NOW // 1000), NOW, State.SERVING),
        (ONLINE, Pulse.SILENT, replace(STAKED, jailed_until=FOR_GOOD), NOW, State.EXPELLED),
        (replace(ONLINE, state=NodeState.LOADING), Pulse.ANSWERS, STAKED, NOW, State.LOADING),
        (replace(ONLINE, state=NodeState.DRAINING), Pulse.ANSWERS, STAKED, NOW, State.DRAINING),
        (replace(ONLINE, state=NodeState.OFFLINE), Pulse.SILENT, STAKED, GONE, State.AWAY),
        (None, Pulse.UNKNOWN, STAKED, NOW, State.AWAY),
    ],
)
def test_a_node_is_shown_as_what_a_client_would_find_it(
    node: object, pulse: Pulse, registered: Registered | None, at: int, state: State
) -> None:
    assert view.state_of(node, pulse, registered, now=at, min_stake=MIN_STAKE) is state  # type: ignore[arg-type]


def test_a_node_is_silent_when_it_did_not_answer_for_three_seconds() -> None:
    assert Beat(10.0).pulse(10.0 + SILENCE) is Pulse.UNKNOWN
    assert Beat(10.0).pulse(10.1 + SILENCE) is Pulse.SILENT
    assert Beat(10.0, heard=50.0).pulse(50.0 + SILENCE) is Pulse.ANSWERS
    assert Beat(10.0, heard=50.0).pulse(50.1 + SILENCE) is Pulse.SILENT


def test_one_failure_is_nothing_and_two_in_a_row_are_silence() -> None:
    assert Beat(10.0, heard=50.0, failures=TRIES - 1).pulse(50.0) is Pulse.ANSWERS
    assert Beat(10.0, heard=50.0, failures=TRIES).pulse(50.0) is Pulse.SILENT


def seen(world: FakeNetwork, *, tick: float = 0.0, heard: float | None = 0.0) -> view.Sight:
    """All of it, with every node heard at `heard` unless it is dead."""
    sightings = {one.account: one for one in world.announcements}
    beats = {
        each: Beat(-100.0 if each in world.dead else 0.0, None if each in world.dead else heard) for each in sightings
    }
    shelf = shelf_of(world.audits, {})
    now = int(time.time() * 1000)
    return view.Sight(now, tick, Ledger(world.events), sightings, beats, shelf, MIN_STAKE)


def test_blocks_whose_last_node_dies_are_a_gap() -> None:
    world = FakeNetwork.of_thirds()
    assert view.coverage(BLOCKS, view.node_views(seen(world))).gaps == ()
    world.dead = {account(1)}
    still = view.coverage(BLOCKS, view.node_views(seen(world)))
    assert (still.gaps, set(still.servers[10:20]), set(still.servers[:10])) == ((), {1}, {2})
    world.dead = {account(1), account(4)}
    found = view.coverage(BLOCKS, view.node_views(seen(world)))
    assert found.gaps == (Blocks(start=10, end=20),)
    assert [row.state for row in found.rows if row.account in world.dead] == [State.DOWN, State.DOWN]


def test_a_node_not_heard_yet_is_believed_and_one_that_said_goodbye_leaves_the_map() -> None:
    world = FakeNetwork.of_thirds()
    assert view.coverage(BLOCKS, view.node_views(seen(world, heard=None))).gaps == ()
    world.announce(0, THIRDS[0], state=NodeState.OFFLINE)
    found = view.coverage(BLOCKS, view.node_views(seen(world)))
    assert account(0) not in [row.account for row in found.rows]
    assert set(found.servers[:10]) == {1}


@given(spans=st.lists(st.tuples(st.integers(0, 11), st.integers(1, 12)), max_size=8), blocks=st.integers(1, 12))
def test_a_block_is_in_a_gap_exactly_when_no_node_serves_it(spans: list[tuple[int, int]], blocks: int) -> None:
    world = FakeNetwork()
    for number, (start, length) in enumerate(spans):
        world.announce(number, Span(start, start + length))
        world.happen(on_chain.NodeRegistered(account(number), ZERO_ADDRESS, b"", STAKE))
    found = view.coverage(blocks, view.node_views(seen(world)))
    bare = {block for gap in found.gaps for block in range(gap.start, gap.end)}
    assert bare == {block for block, count in enumerate(found.servers) if count == 0}
    assert bare == set(range(blocks)) - {b for start, length in spans for b in range(start, start + length)}


def test_blocks_that_a_node_makes_up_are_not_on_the_map() -> None:
    world = FakeNetwork.of_thirds()
    world.announce(0, Span(0, 4096))
    world.announce(1, Span(500, 501))
    found = view.coverage(BLOCKS, view.node_views(seen(world)))
    assert len(found.servers) == BLOCKS
    assert max(row.blocks.end for row in found.rows) == BLOCKS
    assert account(1) not in [row.account for row in found.rows]


def test_runs_are_as_long_as_they_can_be() -> None:
    assert view.runs([1, 2, 5, 9, 10]) == (Blocks(start=1, end=3), Blocks(start=5, end=6), Blocks(start=9, end=11))
    assert view.runs([]) == ()


def test_a_convicted_node_is_expelled_with_what_it_lost_and_the_transactions_that_say_so() -> None:
    world = FakeNetwork.of_thirds()
    world.convict(2)
    sight = seen(world)
    (node,) = [one for one in view.node_views(sight) if one.account == account(2)]
    assert (node.state, node.stake, node.slashed) == (State.EXPELLED, "0", "100")
    (penalty,) = view.penalty_views(sight.ledger)
    assert (penalty.node, penalty.amount, penalty.reason) == (account(2), "100", "jury, dispute 1")
    (dispute,) = view.dispute_views(sight.ledger)
    assert (dispute.outcome, dispute.slashed, dispute.refund) == ("faulty", "100", "0.01")
    assert (dispute.rounds[0].seats, dispute.rounds[0].faulty) == (2, 2)
    slashed_in = next(i for i in world.events if isinstance(i.event, on_chain.NodeSlashed))
    assert penalty.place.tx == "0x" + slashed_in.tx_hash.hex()
    assert dispute.concluded is not None
    assert dispute.concluded.block == world.events[-1].block_number


def test_a_fault_that_the_contract_names_is_told_by_its_name_and_any_other_by_its_hash() -> None:
    world = FakeNetwork.of_thirds()
    for fault in (Hash32(b"equivocation".ljust(32, b"\0")), hashed("?"), Hash32(b"\x07".ljust(32, b"\0"))):
        world.happen(on_chain.NodeSlashed(account(1), 5, ZERO_ADDRESS, 0, fault))
    reasons = [each.reason for each in view.penalty_views(Ledger(world.events))]
    assert reasons == ["0x07" + "00" * 31, "0x" + hashed("?").hex(), "equivocation"]


def test_earnings_are_net_of_what_is_burned_and_who_got_most_comes_first() -> None:
    world = FakeNetwork.of_thirds()
    world.paid(1, ONE_NECTAR // 2)
    world.paid(1, ONE_NECTAR // 2)
    first, second = view.earning_views(Ledger(world.events))
    assert (first.node, first.net, first.burned, first.redemptions) == (account(1), "0.99", "0.01", 2)
    assert (second.node, second.net, second.unclaimed) == (account(0), "0.0297", "0.0297")


def test_a_log_kept_without_its_transaction_is_shown_by_its_block() -> None:
    world = FakeNetwork.of_thirds()
    old = [replace(indexed, tx_hash=ZERO_HASH) for indexed in world.events]
    assert isinstance(old[0], Indexed)
    (earned,) = view.earning_views(Ledger(old))
    assert (earned.last.tx, earned.last.block) == (None, len(old))


def test_a_session_is_as_bad_as_the_worst_of_its_nodes_and_comes_newest_first() -> None:
    audits = (audited(1, 0, session=1), audited(2, 1, session=1, failed=True), audited(3, 0, session=2))
    newer, older = view.session_views(shelf_of(audits, {}))
    assert (newer.outcome, older.outcome) == ("passed", "failed")
    assert [(part.node, part.outcome) for part in older.parts] == [(account(0), "passed"), (account(1), "failed")]
    assert older.parts[1].reasons == ("w16 0.34 over 1e-05",)


def test_a_nodes_audits_are_counted_and_the_first_failure_puts_it_in_quarantine() -> None:
    world = FakeNetwork.of_thirds()
    world.audits = (audited(1, 0), audited(2, 0, failed=True, at=1_700_000_000), audited(3, 1))
    views = {one.account: one for one in view.node_views(seen(world))}
    liar, honest, unseen = views[account(0)], views[account(1)], views[account(2)]
    assert (liar.audits.passed, liar.audits.failed, liar.standing) == (1, 1, "quarantined")
    assert liar.last_audit is not None
    assert (liar.last_audit.outcome, liar.last_audit.at) == ("failed", 1_700_000_000)
    assert (honest.standing, unseen.standing, unseen.last_audit) == ("clear", "clear", None)


def test_an_announcement_is_remembered_after_it_expired_and_the_newer_one_stands() -> None:
    first, later = announced(0, Span(0, 10), at=NOW), announced(0, Span(10, 20), at=NOW + 5)
    known = sighted({}, [first, later, first], now_ms=NOW)
    assert known == {account(0): later}
    assert sighted(known, [], now_ms=later.expires_at + REMEMBERED_MS - 1) == known
    assert sighted(known, [], now_ms=later.expires_at + REMEMBERED_MS) == {}
