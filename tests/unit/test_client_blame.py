"""Who is replaced for what: one case each."""

from __future__ import annotations

import pytest

from corolla.blame import MAX_REPEATS, Complaints, Ignore, PayUp, Replace, Report, SendAgain, judge
from corolla_core.protocol.errors import (
    CorollaError,
    OutOfCapacity,
    PeerMisbehaved,
    PeerUnreachable,
    PositionMismatch,
    SessionUnknown,
    TensorRejected,
    VoucherStale,
    VoucherTooSmall,
)
from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import Nectar

A, B, C = Address("0xA"), Address("0xB"), Address("0xC")
CHAIN = [A, B, C]


def report(error: CorollaError, *, by: Address = B, repeats: int = 0) -> Report:
    return Report(by, error, repeats, ordered=Nectar(100), signed=Nectar(80))


def test_a_node_owed_what_was_ordered_is_paid() -> None:
    assert judge(report(VoucherTooSmall(owed=100, offered=80)), CHAIN) == PayUp(B)


@pytest.mark.parametrize("owed", [101, None, "100"])
def test_a_node_that_demands_more_than_was_ordered_is_out(owed: object) -> None:
    verdict = judge(report(VoucherTooSmall(owed=owed, offered=80)), CHAIN)
    assert isinstance(verdict, Replace)
    assert verdict.account == B
    assert isinstance(verdict.error, PeerMisbehaved)


def test_a_node_that_never_takes_its_voucher_is_out() -> None:
    verdict = judge(report(VoucherTooSmall(owed=90, offered=0), repeats=MAX_REPEATS), CHAIN)
    assert isinstance(verdict, Replace)


def test_vouchers_that_overtook_each_other_do_no_harm() -> None:
    assert judge(report(VoucherStale(known=80, offered=70)), CHAIN) == Ignore()


def test_a_node_that_claims_a_voucher_never_signed_is_out() -> None:
    assert isinstance(judge(report(VoucherStale(known=81, offered=70)), CHAIN), Replace)


def test_a_node_reported_unreachable_by_the_one_before_it_is_out() -> None:
    error = PeerUnreachable(peer=C)
    assert judge(report(error), CHAIN) == Replace(C, error)


def test_a_second_complaint_of_the_kind_turns_on_who_complains() -> None:
    error = PeerUnreachable(peer=C)
    assert judge(report(error, repeats=1), CHAIN) == Replace(B, error)


def test_a_report_about_a_node_replaced_since_is_old_news() -> None:
    assert judge(report(PeerUnreachable(peer="0xD")), CHAIN) == Ignore()


def test_nobody_can_have_a_node_replaced_that_is_not_next_to_it() -> None:
    error = PeerUnreachable(peer=C)
    assert judge(report(error, by=A), CHAIN) == Replace(A, error)


def test_a_refused_tensor_is_blamed_on_who_sent_it_once() -> None:
    error = TensorRejected("NaN")
    first, again = judge(report(error), CHAIN), judge(report(error, repeats=1), CHAIN)
    assert isinstance(first, Replace)
    assert first.account == A
    assert again == Replace(B, error)


def test_a_first_node_that_refuses_the_clients_own_tensor_is_out() -> None:
    error = TensorRejected("NaN")
    assert judge(report(error, by=A), CHAIN) == Replace(A, error)


def test_a_lost_position_is_tried_again_before_the_node_is_given_up() -> None:
    error = PositionMismatch(expected=3, offered=5)
    assert judge(report(error), CHAIN) == SendAgain(B)
    assert judge(report(error, repeats=MAX_REPEATS), CHAIN) == Replace(B, error)


@pytest.mark.parametrize("error", [OutOfCapacity(needed=1, free=0), SessionUnknown(session_id=b"x")])
def test_a_node_that_cannot_go_on_is_out(error: CorollaError) -> None:
    assert judge(report(error), CHAIN) == Replace(B, error)


def test_a_stranger_has_no_say() -> None:
    assert judge(report(OutOfCapacity(), by=Address("0xD")), CHAIN) == Ignore()


def test_losing_two_neighbours_in_a_row_is_not_held_against_a_node() -> None:
    complaints = Complaints()
    complaints.add(B, PeerUnreachable(peer=C))
    again = PeerUnreachable(peer="0xD")
    assert complaints.count(B, again) == 0
    assert complaints.count(B, PeerUnreachable(peer=C)) == 1
    assert complaints.count(A, PeerUnreachable(peer=C)) == 0
    complaints.add(B, again)
    assert complaints.count(B, PeerUnreachable(peer="0xE")) == 1


def test_a_step_answered_clears_the_record() -> None:
    complaints = Complaints()
    for _ in range(MAX_REPEATS):
        complaints.add(B, VoucherTooSmall(owed=1, offered=0))
    assert complaints.count(B, VoucherTooSmall(owed=2, offered=1)) == MAX_REPEATS
    complaints.clear()
    assert complaints.count(B, VoucherTooSmall(owed=2, offered=1)) == 0
