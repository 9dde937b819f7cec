"""Disputes from accusation to settlement: each transition, who gets what, and each refusal."""

from __future__ import annotations

import pytest
from brownie import ZERO_ADDRESS, accounts, chain
from eth_utils import keccak
from jury_world import (
    APPEAL,
    APPEALING,
    BOND,
    CHALLENGER,
    CLIENT,
    COMMITTING,
    CONCLUDABLE,
    CONCLUDED,
    CORRECT,
    DRAW,
    DRAWING,
    DRAWN,
    FAULTY,
    JAIL,
    JURORS,
    NODE,
    NONE,
    OWNER,
    REVEALING,
    SALT,
    SEAT_STAKE,
    SEATS,
    UNAVAILABLE,
    UNKNOWN,
    bond_of,
    commitment,
)
from world import MIN_STAKE, ONE_NECTAR, now, pass_time, reverts, signer

SLASH = MIN_STAKE // 2
PENALTY = SEAT_STAKE // 10


def address(index):
    """An account as Brownie shows it in a custom error."""
    return accounts[index].address.lower()


def split(jury):
    """A jury's jurors in two parts, the larger first, that it votes by."""
    order = sorted(jury, key=jury.get, reverse=True)
    larger, smaller = [], []
    for juror in order:
        (larger if sum(map(jury.get, larger)) <= sum(map(jury.get, smaller)) else smaller).append(juror)
    if sum(map(jury.get, larger)) < sum(map(jury.get, smaller)):
        larger, smaller = smaller, larger
    return larger, smaller


def burned_by(jury, action):
    before = jury.token.totalSupply()
    action()
    return before - jury.token.totalSupply()


# ---- the whole way ----


def test_a_faulty_node_is_slashed_and_jailed_and_the_accusers_are_paid(jury):
    id_ = jury.accuse()
    assert jury.phase(id_) == DRAWING
    drawn = jury.draw(id_)
    assert (jury.phase(id_), sum(drawn.values())) == (COMMITTING, 5)
    for juror in drawn:
        jury.commit(id_, juror, FAULTY)
    pass_time(jury.current(id_)["commitUntil"] + 1)
    assert jury.phase(id_) == REVEALING
    for juror in drawn:
        jury.reveal(id_, juror, FAULTY)
    pass_time(jury.current(id_)["revealUntil"] + 1)
    assert (jury.phase(id_), jury.disputes.verdictOf(id_, 0)) == (APPEALING, FAULTY)
    jury.let_appeals_pass(id_)
    assert jury.phase(id_) == CONCLUDABLE
    burned = burned_by(jury, lambda: jury.disputes.conclude(id_, {"from": accounts[0]}))
    assert (jury.phase(id_), jury.disputes.dispute(id_)["outcome"]) == (CONCLUDED, FAULTY)
    record = jury.registry.nodeOf(accounts[NODE])
    assert record["stake"] == MIN_STAKE - SLASH
    assert record["jailedUntil"] >= now() + JAIL - 60
    assert not record["active"]
    assert burned == SLASH // 2
    assert jury.credit(CHALLENGER) == BOND + SLASH * 3 // 10
    jury.settle(id_, drawn)
    assert sum(map(jury.credit, drawn)) == SLASH * 2 // 10
    assert all(jury.credit(juror) == SLASH * 2 // 10 // 5 * seats for juror, seats in drawn.items())
    jury.disputes.withdraw(accounts[11], {"from": accounts[CHALLENGER]})
    assert jury.token.balanceOf(accounts[11]) == BOND + SLASH * 3 // 10
    assert jury.credit(CHALLENGER) == 0


def test_a_false_accuser_loses_its_bond_half_to_the_owner_half_to_the_jury(jury):
    id_ = jury.accuse()
    drawn = jury.jury_votes(id_, CORRECT)
    assert burned_by(jury, lambda: jury.conclude(id_)) == 0
    jury.settle(id_, drawn)
    assert jury.credit(CHALLENGER) == 0
    assert jury.credit(OWNER) == BOND // 2
    assert sum(map(jury.credit, drawn)) == BOND // 2
    record = jury.registry.nodeOf(accounts[NODE])
    assert (record["stake"], record["active"]) == (MIN_STAKE, True)


def test_unavailable_evidence_slashes_nobody_and_gives_the_bond_back(jury):
    id_ = jury.accuse()
    drawn = jury.jury_votes(id_, UNAVAILABLE)
    assert jury.phase(id_) == CONCLUDABLE  # nobody lost, so nobody may appeal
    jury.disputes.conclude(id_, {"from": accounts[0]})
    jury.settle(id_, drawn)
    assert jury.credit(CHALLENGER) == BOND
    assert jury.registry.nodeOf(accounts[NODE])["stake"] == MIN_STAKE
    assert all(jury.juror(juror)["locked"] == 0 for juror in drawn)


def test_no_votes_is_a_draw_and_burns_what_the_absent_forfeit(jury):
    id_ = jury.accuse()
    drawn = jury.draw(id_)
    stakes = {juror: jury.juror(juror)["stake"] for juror in drawn}
    pass_time(jury.current(id_)["revealUntil"] + 1)
    assert burned_by(jury, lambda: jury.disputes.conclude(id_, {"from": accounts[0]})) == 5 * PENALTY
    assert (jury.disputes.dispute(id_)["outcome"], jury.credit(CHALLENGER)) == (DRAWN, BOND)
    jury.settle(id_, drawn)
    for juror, seats in drawn.items():
        assert jury.juror(juror)["stake"] == stakes[juror] - seats * PENALTY


def test_a_tie_is_a_draw_in_which_those_who_voted_lose_nothing(jury):
    id_ = jury.accuse()
    drawn = jury.draw(id_)
    while True:  # until the seats divide evenly between two of the jurors
        pairs = [(a, b) for a in drawn for b in drawn if a < b and drawn[a] == drawn[b]]
        if pairs:
            break
        id_ = jury.accuse()
        drawn = jury.draw(id_)
    one, other = pairs[0]
    jury.vote(id_, {one: FAULTY, other: CORRECT})
    stakes = {juror: jury.juror(juror)["stake"] for juror in drawn}
    jury.disputes.conclude(id_, {"from": accounts[0]})
    jury.settle(id_, drawn)
    assert jury.disputes.dispute(id_)["outcome"] == DRAWN
    assert jury.registry.nodeOf(accounts[NODE])["stake"] == MIN_STAKE
    for juror, seats in drawn.items():
        lost = 0 if juror in (one, other) else seats * PENALTY
        assert jury.juror(juror)["stake"] == stakes[juror] - lost
        assert jury.credit(juror) == 0


def test_a_jury_nobody_draws_in_time_is_a_draw(jury):
    id_ = jury.accuse()
    pass_time(jury.current(id_)["drawUntil"] + 1)
    with reverts("WrongPhase", id_, CONCLUDABLE):
        jury.disputes.draw(id_, {"from": accounts[0]})
    jury.disputes.conclude(id_, {"from": accounts[0]})
    assert (jury.disputes.dispute(id_)["outcome"], jury.credit(CHALLENGER)) == (DRAWN, BOND)


def test_wrong_and_missing_votes_pay_the_right_ones(jury):
    id_, drawn = jury.with_several_jurors()
    right, wrong = split(drawn)
    silent, liars = wrong[:1], wrong[1:]
    jury.vote(id_, dict.fromkeys(right, CORRECT) | dict.fromkeys(liars, FAULTY))
    stakes = {juror: jury.juror(juror)["stake"] for juror in drawn}
    jury.conclude(id_)
    jury.settle(id_, drawn)
    lost = sum(drawn[juror] for juror in wrong) * PENALTY
    each = (BOND // 2 + lost) // sum(drawn[juror] for juror in right)
    for juror in silent + liars:
        assert jury.juror(juror)["stake"] == stakes[juror] - drawn[juror] * PENALTY
        assert jury.credit(juror) == 0
    for juror in right:
        assert jury.juror(juror)["stake"] == stakes[juror]
        assert jury.credit(juror) == drawn[juror] * each


def test_a_bribed_minority_cannot_convict(jury):
    id_, drawn = jury.with_several_jurors()
    honest, bribed = split(drawn)
    assert sum(map(drawn.get, bribed)) < sum(map(drawn.get, honest))
    jury.vote(id_, dict.fromkeys(honest, CORRECT) | dict.fromkeys(bribed, FAULTY))
    jury.conclude(id_)
    assert jury.disputes.dispute(id_)["outcome"] == CORRECT
    assert jury.registry.nodeOf(accounts[NODE])["stake"] == MIN_STAKE


# ---- appeals ----


def test_a_larger_jury_overturns_and_the_earlier_jurors_are_judged_by_it(jury):
    id_ = jury.accuse()
    first = jury.jury_votes(id_, FAULTY)
    tx = jury.appeal(id_, by=OWNER)
    assert tx.events["JuryCalled"]["seats"] == 11
    second = jury.jury_votes(id_, CORRECT)
    assert sum(second.values()) == 11
    stakes = {juror: jury.juror(juror)["stake"] for juror in JURORS}
    jury.conclude(id_)
    jury.settle(id_, JURORS)
    assert jury.registry.nodeOf(accounts[NODE])["stake"] == MIN_STAKE
    assert jury.credit(OWNER) == bond_of(1) + BOND // 2  # its own bond back, half the challenger's
    each = (BOND // 2 + 5 * PENALTY) // 11
    for juror in JURORS:
        assert jury.juror(juror)["stake"] == stakes[juror] - first.get(juror, 0) * PENALTY
        assert jury.credit(juror) == second.get(juror, 0) * each


def test_an_appeal_lost_costs_its_bond(jury):
    id_ = jury.accuse()
    jury.jury_votes(id_, FAULTY)
    jury.appeal(id_, by=NODE)  # the node may, as well as its owner
    jury.jury_votes(id_, FAULTY)
    jury.conclude(id_)
    jury.settle(id_, JURORS)
    assert jury.credit(NODE) == jury.credit(OWNER) == 0
    assert jury.credit(CHALLENGER) == BOND + SLASH * 3 // 10 + bond_of(1) // 2
    assert sum(map(jury.credit, JURORS)) == (SLASH * 2 // 10 + bond_of(1) // 2) // 16 * 16


def test_two_appeals_and_no_more(jury):
    id_ = jury.accuse()
    jury.jury_votes(id_, CORRECT)
    jury.appeal(id_, by=CHALLENGER)
    jury.jury_votes(id_, FAULTY)
    jury.appeal(id_, by=OWNER)
    last = jury.jury_votes(id_, CORRECT)
    assert sum(last.values()) == 23
    assert jury.phase(id_) == CONCLUDABLE
    with reverts("WrongPhase", id_, CONCLUDABLE):
        jury.disputes.appeal(id_, {"from": accounts[CHALLENGER]})
    jury.disputes.conclude(id_, {"from": accounts[0]})
    jury.settle(id_, JURORS)
    assert jury.disputes.dispute(id_)["outcome"] == CORRECT
    assert jury.credit(CHALLENGER) == 0
    assert jury.credit(OWNER) == bond_of(2) + BOND // 2 + bond_of(1) // 2


def test_an_appeal_that_ends_in_a_draw_gives_every_bond_back(jury):
    id_ = jury.accuse()
    jury.jury_votes(id_, FAULTY)
    jury.appeal(id_, by=OWNER)
    pass_time(jury.current(id_)["drawUntil"] + 1)
    jury.disputes.conclude(id_, {"from": accounts[0]})
    assert (jury.credit(OWNER), jury.credit(CHALLENGER)) == (bond_of(1), BOND)
    assert jury.registry.nodeOf(accounts[NODE])["stake"] == MIN_STAKE


@pytest.mark.parametrize(("vote", "strangers"), [(FAULTY, (CHALLENGER, 8)), (CORRECT, (NODE, OWNER, 8))])
def test_only_the_losing_side_appeals(jury, vote, strangers):
    id_ = jury.accuse()
    jury.jury_votes(id_, vote)
    for stranger in strangers:
        with reverts("NotTheLosingSide"):
            jury.disputes.appeal(id_, {"from": accounts[stranger]})


def test_an_appeal_must_be_in_time_and_pay(jury):
    id_ = jury.accuse()
    jury.jury_votes(id_, FAULTY)
    with reverts("ERC20InsufficientAllowance"):
        jury.disputes.appeal(id_, {"from": accounts[OWNER]})
    with reverts("WrongPhase", id_, APPEALING):
        jury.disputes.conclude(id_, {"from": accounts[0]})
    pass_time(jury.current(id_)["revealUntil"] + APPEAL + 1)
    with reverts("WrongPhase", id_, CONCLUDABLE):
        jury.disputes.appeal(id_, {"from": accounts[OWNER]})


# ---- accusing ----


def test_what_an_accusation_needs(jury):
    with reverts("NodeUnknown", address(8)):
        jury.accuse(node=8)
    with reverts("NotSignedByNode"):
        jury.accuse(signed_by=8)
    with reverts("EvidenceMissing"):
        jury.accuse(evidence=bytes(32))
    with reverts("UriTooLong", 257):
        jury.accuse(uri="x" * 257)
    with reverts("TrancheUnknown"):
        jury.accuse(tranche=keccak(text="none"))
    for self_ in (NODE, OWNER):
        with reverts("SelfAccusation", address(self_)):
            jury.accuse(by=self_)
    jury.registry.slash(accounts[NODE], MIN_STAKE, accounts[0], 0, bytes(32), {"from": accounts[0]})
    with reverts("NothingAtStake", address(NODE)):
        jury.accuse()


def test_a_malleable_or_malformed_signature_is_refused(jury):
    receipt = jury.receipt()
    good = signer(NODE).sign(receipt)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = good[:32] + (order - int.from_bytes(good[32:64], "big")).to_bytes(32, "big") + bytes([55 - good[64]])
    for bad in (high, good[:64], b"", bytes(65)):
        with reverts("NotSignedByNode"):
            jury.accuse(receipt=receipt, signature=bad)
    jury.accuse(receipt=receipt, signature=good)


def test_a_receipt_is_before_one_jury_at_a_time_and_never_after_a_verdict(jury):
    receipt = jury.receipt()
    first = jury.accuse(receipt=receipt)
    with reverts("AlreadyAccused", first):
        jury.accuse(receipt=receipt)
    jury.jury_votes(first, UNAVAILABLE)
    jury.disputes.conclude(first, {"from": accounts[0]})
    second = jury.accuse(receipt=receipt)  # what was not judged may come again
    jury.jury_votes(second, CORRECT)
    jury.conclude(second)
    with reverts("AlreadyAccused", second):
        jury.accuse(receipt=receipt)
    third = jury.accuse()
    jury.jury_votes(third, FAULTY)
    jury.conclude(third)
    with reverts("AlreadyAccused", third):
        jury.accuse(receipt=bytes(jury.disputes.dispute(third)["receiptHash"]))


def test_somebody_elses_signature_over_the_same_hash_does_not_shield_a_node(jury):
    receipt = jury.receipt()
    jury.stake(2)
    decoy = jury.accuse(node=2, receipt=receipt)
    assert jury.accuse(receipt=receipt) == decoy + 1


# ---- voting ----


def test_a_copied_commitment_cannot_be_opened(jury):
    id_, drawn = jury.with_several_jurors()
    author, copier = list(drawn)[:2]
    sealed = commitment(id_, 0, author, FAULTY)
    for juror in (author, copier):
        jury.disputes.commit(id_, sealed, {"from": accounts[juror]})
    pass_time(jury.current(id_)["commitUntil"] + 1)
    jury.reveal(id_, author, FAULTY)
    with reverts("CommitmentMismatch", id_, address(copier)):
        jury.reveal(id_, copier, FAULTY)


def test_votes_are_sealed_and_opened_in_their_time(jury):
    id_ = jury.accuse()
    juror, *others = jury.draw(id_)
    stranger = next(j for j in (1, 2, 3) if j not in (juror, *others))
    with reverts("WrongPhase", id_, COMMITTING):
        jury.reveal(id_, juror, FAULTY)
    with reverts("CommitmentIsZero"):
        jury.disputes.commit(id_, bytes(32), {"from": accounts[juror]})
    with reverts("NotDrawn", id_, address(stranger)):
        jury.commit(id_, stranger, FAULTY)
    jury.commit(id_, juror, FAULTY)
    jury.commit(id_, juror, CORRECT)  # a mind may change while it is sealed
    pass_time(jury.current(id_)["commitUntil"] + 1)
    with reverts("WrongPhase", id_, REVEALING):
        jury.commit(id_, juror, FAULTY)
    with reverts("CommitmentMismatch"):
        jury.reveal(id_, juror, FAULTY)
    with reverts("CommitmentMismatch"):
        jury.reveal(id_, juror, CORRECT, keccak(text="another salt"))
    with reverts("VoteIsNone"):
        jury.reveal(id_, juror, NONE)
    with reverts("NotDrawn", id_, address(stranger)):
        jury.reveal(id_, stranger, CORRECT)
    jury.reveal(id_, juror, CORRECT)
    with reverts("AlreadyRevealed", id_, address(juror)):
        jury.reveal(id_, juror, CORRECT)


def test_a_late_reveal_counts_for_nothing(jury):
    id_ = jury.accuse()
    drawn = jury.draw(id_)
    for juror in drawn:
        jury.commit(id_, juror, FAULTY)
    pass_time(jury.current(id_)["revealUntil"] + 1)
    with reverts("WrongPhase", id_, CONCLUDABLE):
        jury.reveal(id_, next(iter(drawn)), FAULTY)
    assert jury.disputes.verdictOf(id_, 0) == DRAWN


def test_a_vote_of_one_round_cannot_be_replayed_in_the_next(jury):
    id_ = jury.accuse()
    first = jury.jury_votes(id_, FAULTY)
    jury.appeal(id_, by=OWNER)
    second = jury.draw(id_)
    juror = next(j for j in second if j in first)
    jury.disputes.commit(id_, commitment(id_, 0, juror, FAULTY), {"from": accounts[juror]})
    pass_time(jury.current(id_)["commitUntil"] + 1)
    with reverts("CommitmentMismatch", id_, address(juror)):
        jury.reveal(id_, juror, FAULTY)


def test_solidity_and_python_seal_alike(jury):
    assert bytes(jury.disputes.commitmentOf(7, 2, accounts[8], FAULTY, SALT)) == commitment(7, 2, 8, FAULTY)


def test_nothing_can_be_done_to_a_dispute_that_is_not_or_is_over(jury):
    assert jury.disputes.phaseOf(1) == UNKNOWN
    over = jury.accuse()
    pass_time(jury.current(over)["drawUntil"] + 1)
    jury.disputes.conclude(over, {"from": accounts[0]})
    for id_, phase in ((over + 1, UNKNOWN), (over, CONCLUDED)):
        for call in (
            lambda id_=id_: jury.disputes.draw(id_, {"from": accounts[0]}),
            lambda id_=id_: jury.disputes.commit(id_, SALT, {"from": accounts[0]}),
            lambda id_=id_: jury.disputes.reveal(id_, FAULTY, SALT, {"from": accounts[0]}),
            lambda id_=id_: jury.disputes.appeal(id_, {"from": accounts[0]}),
            lambda id_=id_: jury.disputes.conclude(id_, {"from": accounts[0]}),
        ):
            with reverts("WrongPhase", id_, phase):
                call()
    with reverts("WrongPhase", over + 1, UNKNOWN):
        jury.settle(over + 1, [7])


def test_a_dispute_is_settled_only_after_it_is_over_and_only_once(jury):
    id_ = jury.accuse()
    drawn = jury.draw(id_)
    with reverts("WrongPhase", id_, COMMITTING):
        jury.settle(id_, drawn)
    jury.vote(id_, dict.fromkeys(drawn, CORRECT))
    jury.conclude(id_)
    jury.settle(id_, [*drawn, *drawn])
    paid = sum(map(jury.credit, drawn))
    assert "Settled" not in jury.settle(id_, JURORS).events
    assert sum(map(jury.credit, drawn)) == paid


# ---- money ----


def test_the_harmed_client_is_refunded_what_the_escrow_shows_it_paid(jury):
    tranche = jury.open(CLIENT, {NODE: 20 * ONE_NECTAR})
    jury.redeem(jury.item(tranche, NODE, 8 * ONE_NECTAR))
    id_ = jury.accuse(tranche=tranche.id, harm=100 * ONE_NECTAR)
    assert jury.disputes.dispute(id_)["client"] == accounts[CLIENT]
    drawn = jury.jury_votes(id_, FAULTY)
    burned = burned_by(jury, lambda: jury.conclude(id_))
    jury.settle(id_, drawn)
    rest = SLASH // 2 - 8 * ONE_NECTAR
    assert jury.credit(CLIENT) == 8 * ONE_NECTAR
    assert jury.credit(CHALLENGER) == BOND + rest * 3 // 5
    assert burned == SLASH // 2 + (rest * 2 // 5) % 5
    # The same payment is not refunded for another receipt.
    again = jury.accuse(tranche=tranche.id, harm=100 * ONE_NECTAR)
    jury.jury_votes(again, FAULTY)
    jury.conclude(again)
    assert jury.credit(CLIENT) == 8 * ONE_NECTAR


def test_a_refund_is_at_most_the_harm_stated_and_a_quarter_of_the_slash(jury):
    tranche = jury.open(CLIENT, {NODE: 60 * ONE_NECTAR})
    jury.redeem(jury.item(tranche, NODE, 60 * ONE_NECTAR))
    stated = jury.accuse(tranche=tranche.id, harm=3 * ONE_NECTAR)
    jury.jury_votes(stated, FAULTY)
    jury.conclude(stated)
    assert jury.credit(CLIENT) == 3 * ONE_NECTAR
    capped = jury.accuse(tranche=tranche.id, harm=50 * ONE_NECTAR)
    before = jury.registry.nodeOf(accounts[NODE])["stake"]
    jury.jury_votes(capped, FAULTY)
    jury.conclude(capped)
    assert jury.credit(CLIENT) == 3 * ONE_NECTAR + before // 2 // 4


def test_a_slash_reaches_stake_that_is_unbonding(jury):
    id_ = jury.accuse()
    jury.registry.beginUnstake(accounts[NODE], MIN_STAKE, {"from": accounts[OWNER]})
    jury.jury_votes(id_, FAULTY)
    jury.conclude(id_)
    assert jury.registry.nodeOf(accounts[NODE])["unbonding"] == MIN_STAKE - SLASH


def test_a_dispute_ends_though_the_stake_is_gone_or_the_roles_are(jury):
    gone, stripped = jury.accuse(), jury.accuse()
    for id_ in (gone, stripped):
        jury.draw(id_)
    for id_ in (gone, stripped):
        for juror in JURORS:
            if jury.disputes.ballotOf(id_, 0, accounts[juror])["seats"]:
                jury.commit(id_, juror, FAULTY)
    pass_time(jury.current(stripped)["commitUntil"] + 1)
    for id_ in (gone, stripped):
        for juror in JURORS:
            if jury.disputes.ballotOf(id_, 0, accounts[juror])["seats"]:
                jury.reveal(id_, juror, FAULTY)
    for role in (jury.registry.SLASHER_ROLE(), jury.registry.JAILER_ROLE()):
        jury.registry.revokeRole(role, jury.disputes, {"from": accounts[0]})
    jury.conclude(stripped)
    assert jury.registry.nodeOf(accounts[NODE])["active"]
    jury.registry.grantRole(jury.registry.SLASHER_ROLE(), jury.disputes, {"from": accounts[0]})
    jury.registry.grantRole(jury.registry.JAILER_ROLE(), jury.disputes, {"from": accounts[0]})
    jury.registry.slash(accounts[NODE], MIN_STAKE, accounts[0], 0, bytes(32), {"from": accounts[0]})
    jury.registry.jail(accounts[NODE], 2**64 - 1, {"from": accounts[0]})  # a tombstone, which no jury shortens
    jury.conclude(gone)
    assert [jury.disputes.dispute(id_)["outcome"] for id_ in (gone, stripped)] == [FAULTY, FAULTY]
    assert jury.credit(CHALLENGER) == 2 * BOND


def test_there_is_nothing_to_withdraw_but_what_was_credited(jury):
    with reverts("NothingToWithdraw", address(CHALLENGER)):
        jury.disputes.withdraw(accounts[CHALLENGER], {"from": accounts[CHALLENGER]})
    with reverts("AddressIsZero"):
        jury.disputes.withdraw(ZERO_ADDRESS, {"from": accounts[CHALLENGER]})


# ---- the seed ----


def test_a_jury_is_drawn_from_a_block_that_was_ahead(jury):
    id_ = jury.accuse()
    round_ = jury.current(id_)
    assert round_["seedBlock"] == chain.height + 1
    with reverts("SeedNotMined", round_["seedBlock"]):
        jury.disputes.draw.call(id_, {"from": accounts[0]})


def test_a_seed_that_was_missed_is_armed_anew_over_the_same_snapshot(jury):
    id_ = jury.accuse()
    before = jury.disputes.dispute(id_)["snapshot"]
    chain.mine(258)
    tx = jury.disputes.draw(id_, {"from": accounts[0]})
    assert "JuryDrawn" not in tx.events
    assert tx.events["SeedArmed"]["seedBlock"] == tx.block_number + 1
    assert now() < jury.current(id_)["drawUntil"] <= now() + DRAW
    assert sum(jury.draw(id_).values()) == SEATS[0]
    assert jury.disputes.dispute(id_)["snapshot"] == before
