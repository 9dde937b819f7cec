"""A thousand nodes, a fifth of them cheating in every way we know, with churn: who is caught, and who pays for it."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from benchmarks.market.books import MoneyLost
from benchmarks.market.court import Role
from benchmarks.market.kinds import HONEST, KINDS, Fault
from benchmarks.market.report import Fate, Summary, summarise
from benchmarks.market.rules import Rules
from benchmarks.market.world import World
from benchmarks.simulation import fates_table, records
from rich.console import Console
from tests.simulation.table import ASSUMED, HALF

SMALL = Rules(nodes=240, sessions=120, epochs=12)
CHEATED_AT_MOST = 200
"""Sessions, by the first failed audit of a cheat that nine audits of ten see: one session in 26 is audited by somebody
diligent and seen, and one adversary in e^(200/26) = 2,000 is luckier than this."""


@pytest.fixture(scope="module")
def world() -> World:
    return World(Rules(), ASSUMED, seed=3).run()


@pytest.fixture(scope="module")
def summary(world: World) -> Summary:
    return summarise([world])


def seen(summary: Summary) -> list[Fate]:
    return [fate for fate in summary.fates if fate.seen]


def test_no_honest_node_is_slashed_whatever_crashes_or_accuses_it(world: World, summary: Summary) -> None:
    nodes = world.nodes
    honest = nodes.kind == HONEST
    assert (nodes.slashed[honest] == 0).all()
    assert (nodes.convicted[honest] < 0).all()
    assert summary.honest_slashed == 0
    assert summary.false_disputes > 3
    assert (nodes.down_until[honest] > 0).sum() > 100
    assert summary.honest_audits > 8_000


def test_every_adversary_that_audits_nearly_always_see_is_caught_in_time(world: World) -> None:
    nodes = world.nodes
    certain = nodes.genesis & (world.power[nodes.kind, nodes.numerics] >= 0.9) & (nodes.first_cheat >= 0)
    assert certain.sum() > 100
    undetected = np.where(nodes.first_flag >= 0, nodes.cheated_at_flag, nodes.cheated)[certain]
    assert undetected.max() <= CHEATED_AT_MOST


def test_most_visible_cheats_are_slashed_within_twenty_epochs(summary: Summary) -> None:
    for fate in seen(summary):
        patient = fate.kind.wary or fate.kind.behaviour in HALF
        assert fate.to_slash is not None
        assert fate.to_slash <= (45 if patient else 20), fate.kind.name
        assert fate.slashed >= (0.4 if patient else 0.9), fate.kind.name


def test_attackers_of_every_visible_kind_end_poorer_than_they_were_and_than_the_honest(summary: Summary) -> None:
    assert summary.honest_net > 0
    for fate in seen(summary):
        assert fate.lost > fate.gained, fate.kind.name
        assert fate.net < 0 < fate.honest, fate.kind.name


def test_cheats_a_class_cannot_see_are_not_caught_and_pay(summary: Summary) -> None:
    """No defence is claimed where there is none: clients must ask for float32."""
    blind = [fate for fate in summary.fates if not fate.seen]
    assert {fate.kind.name for fate in blind} == {"int8 on one block", "1 % noise"}
    for fate in blind:
        assert "bf16" in fate.classes
        assert "fp32" not in fate.classes
        assert fate.slashed == 0
        assert fate.gained > fate.lost == 0
        assert fate.net > 0
        assert not fate.deterred


def test_the_inequality_holds_for_every_visible_kind_but_withheld_openings(summary: Summary) -> None:
    """5 % of the least stake is less than the margin asks for; jail and the probes make up for it here."""
    for fate in seen(summary):
        assert fate.deterred == (fate.kind.fault is not Fault.WITHHELD), fate.kind.name


def test_traffic_leaves_the_cheats_that_audits_see(summary: Summary) -> None:
    assert summary.traffic[0, 0] > 0.15
    assert summary.traffic[-10:, 0].mean() < 0.02


def test_validators_that_nod_accuse_falsely_or_sell_their_vote_lose_and_the_diligent_earn(world: World) -> None:
    validators = world.validators
    change = validators.stake + validators.wallet - validators.endowed
    mean = {role: change[validators.role == role].mean() for role in Role}
    assert mean[Role.DILIGENT] > 0
    assert mean[Role.LAZY] < 0.2 * mean[Role.DILIGENT]
    assert mean[Role.BRIBED] < 0
    assert mean[Role.FALSE_ACCUSER] < mean[Role.DILIGENT]
    assert not validators.active[validators.role == Role.BRIBED].any()


def test_money_is_conserved_and_a_single_unit_more_is_noticed(world: World) -> None:
    world.books.check(int(world.nodes.worth().sum() + world.validators.stake.sum() + world.validators.wallet.sum()))
    other = World(SMALL, ASSUMED, seed=1)
    other.step()
    other.books.burned += 1
    with pytest.raises(MoneyLost):
        other.step()


def test_nobody_owns_less_than_nothing(world: World) -> None:
    assert (world.nodes.stake >= 0).all()
    assert (world.nodes.locked >= 0).all()
    assert (world.nodes.wallet >= 0).all()
    assert (world.validators.stake >= 0).all()
    assert (world.validators.wallet >= 0).all()
    assert min(world.books.pot, world.books.bonds, world.books.burned, world.books.refunded) >= 0


def test_nearly_all_that_convicted_cheats_took_is_refunded(world: World) -> None:
    """Not all: who was found late took more than its slash leaves after the challenger's and the jury's shares."""
    gone = (world.nodes.convicted >= 0) & (world.nodes.stake == 0)
    assert gone.sum() > 100
    assert world.nodes.owed[gone].sum() < 0.05 * world.books.refunded
    assert (world.nodes.owed[gone] == 0).mean() > 0.95


def test_the_report_says_something_of_every_kind(summary: Summary) -> None:
    names = [each.name for each in records(summary)]
    assert len(names) == len(set(names))
    assert all(any(name.startswith(kind.name) for name in names) for kind in KINDS)
    shown = io.StringIO()
    Console(file=shown, width=220).print(fates_table(summary))
    assert all(kind.name in shown.getvalue() for kind in KINDS)


def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    first, again, other = (World(SMALL, ASSUMED, seed=seed).run() for seed in (5, 5, 6))
    assert np.array_equal(first.nodes.worth(), again.nodes.worth())
    assert np.array_equal(first.validators.wallet, again.validators.wallet)
    assert first.tally == again.tally
    assert first.books == again.books
    assert not np.array_equal(first.nodes.worth(), other.nodes.worth())


def test_without_audits_cheating_pays_and_nobody_is_caught() -> None:
    """The simulation can lose: what deters in it is the audits, not its arithmetic."""
    blind = replace(SMALL, audit=Fraction(0), probed=Fraction(0), epochs=30)
    world = World(blind, ASSUMED, seed=5).run()
    summary = summarise([world])
    assert not any(fate.flagged for fate in summary.fates)
    early_exit = next(fate for fate in summary.fates if fate.kind.name == "early exit")
    assert early_exit.gained > early_exit.lost == 0
