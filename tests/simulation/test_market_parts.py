"""The simulation's parts: the detection table, the honest noise, and that its choices are the product's."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from benchmarks.market.detection import AIMED, CLASSES, WINDOWS, false_positive, load_detection
from benchmarks.market.kinds import KINDS
from benchmarks.market.routing import Offers, candidate, route
from benchmarks.market.rules import Rules
from benchmarks.market.sweep import least_stake
from benchmarks.market.world import World
from tests.simulation.table import ASSUMED

from corolla.router import find_route
from corolla_core.protocol.deterrence import diligence_pays, honest_safe
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.reputation import History, on_probation, score
from corolla_core.protocol.span import Span
from corolla_core.protocol.suspicion import Standing, Suspicion
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.verdict import Outcome as Audited
from corolla_core.protocol.verdict import Verdict


def test_the_shipped_measurements_cover_every_kind_in_float32_and_bfloat16() -> None:
    detection = load_detection()
    for kind in KINDS:
        assert "bf16" in detection.possible(kind.behaviour, CLASSES), kind.name
        for name in detection.possible(kind.behaviour, CLASSES):
            assert 0 <= detection.power(kind.behaviour, name) <= 1
    assert detection.power("early exit", "bf16") > Fraction(4, 5)
    assert detection.power(None, "bf16") == 1


def test_power_is_what_few_windows_allow_to_say_and_none_where_validators_do_not_run_the_test(tmp_path: Path) -> None:
    def row(behaviour: str, failed: int, *, wire: str = "bfloat16", honest: bool = False) -> dict[str, object]:
        return {
            "numeric_class": "bf16",
            "wire": wire,
            "behaviour": behaviour,
            "honest": honest,
            "windows": 24,
            "windows_failed": failed,
        }

    measured = tmp_path / "detection.json"
    rows = [row("NF4", 24), row("NF4", 0, wire="float32"), row("1 % noise", 0), row("honest", 0, honest=True)]
    measured.write_text(json.dumps({"rows": [*rows, row("int8 on one block", 24)]}))
    detection = load_detection(measured)
    # (1 - 0.95) ** (1 / 24), the Clopper-Pearson bound where all were seen
    assert float(detection.power("NF4", "bf16")) == pytest.approx(0.05 ** (1 / 24), abs=1e-5)
    assert detection.power("1 % noise", "bf16") == detection.power("int8 on one block", "bf16") == 0
    assert detection.possible("honest", CLASSES) == []
    assert detection.possible(None, CLASSES) == list(CLASSES)


def test_one_honest_window_in_a_million_fails_at_a_limit_as_tight_as_calibration_may_make_it() -> None:
    assert false_positive(windows=1) == pytest.approx(AIMED, rel=1e-6)
    assert false_positive() == pytest.approx(WINDOWS * AIMED, rel=1e-4)
    assert false_positive(0.95) < false_positive() < false_positive(1.05)


def test_who_waits_for_the_outcome_of_every_lie_lies_in_a_hundredth_of_its_sessions_at_most() -> None:
    """At one audit in ten, as validators do: ten sessions with lies until one is drawn, then honest until it fades."""
    failed, passed, suspicion = Verdict(Audited.FAILED), Verdict(Audited.PASSED), Suspicion()
    lies = honest = 0
    for session in range(5_000):
        wanted = Hash32(session.to_bytes(32, "big"))
        if suspicion.standing is not Standing.CLEAR:
            honest += 1
            suspicion = suspicion.after(passed, wanted)
        else:
            lies += 1
            if lies % 10 == 0:
                suspicion = suspicion.after(failed, wanted)
    assert lies / (lies + honest) < 0.011


@pytest.fixture(scope="module")
def young() -> World:
    """Twelve epochs, with newcomers among the nodes."""
    return World(Rules(nodes=120, sessions=120, clients=20, epochs=12, joins=4.0), ASSUMED, seed=2).run()


def test_scores_are_those_of_the_products_reputation(young: World) -> None:
    nodes = young.nodes
    nodes.settle()
    for row in range(0, nodes.count, 7):
        history = History(float(nodes.passed[row]), float(nodes.failed[row]))
        assert np.isnan(nodes.score[row]) == on_probation(history, young.rules.terms)
        if not np.isnan(nodes.score[row]):
            assert nodes.score[row] == pytest.approx(score(history, young.rules.terms), abs=1e-7)
    assert np.isnan(nodes.score[: nodes.count]).any()


def test_clients_choose_whom_the_products_router_chooses(young: World) -> None:
    """With everybody's round trip measured, as long as no machine is full."""
    nodes, offers, rules = young.nodes, Offers(young.nodes), replace(young.rules, sessions=10)
    nodes.rules = rules
    young.clients.measured[:] = True
    state = young.clients.rng.bit_generator.state
    chosen = route(nodes, young.clients, offers, young.epoch)
    young.clients.rng.bit_generator.state = state
    who = young.clients.rng.integers(rules.clients, size=rules.sessions)
    reserved = young.clients.rng.random(rules.sessions) >= rules.terms.newcomer_share
    serving = np.nonzero(nodes.serving(young.epoch))[0]
    for session, client in enumerate(who):
        for stage in range(rules.stages):
            offered = [
                candidate(
                    nodes,
                    int(row),
                    rtt=float(young.clients.rtt[client, row]),
                    in_reserve=bool(reserved[session] and np.isnan(nodes.score[row])),
                )
                for row in serving[nodes.stage[serving] == stage]
            ]
            legs = find_route(offered, Span(0, rules.blocks), preference=offers.preference)
            assert [leg.account for leg in legs] == [candidate(nodes, int(chosen[stage, session])).account]


def test_what_befalls_a_machine_befalls_every_identity_on_it() -> None:
    rules = Rules(nodes=60, sessions=60, clients=12, machines=30, identities=4, epochs=20, crash=0.1, leave=0.02)
    world = World(rules, ASSUMED, seed=1).run()
    nodes = world.nodes
    assert nodes.studied.sum() == rules.machines * rules.identities
    for machine in np.unique(nodes.machine[nodes.studied]):
        rows = nodes.machine == machine
        assert rows.sum() == rules.identities
        for column in (nodes.down_until, nodes.released_at, nodes.price, nodes.pace, nodes.stage, nodes.false_positive):
            assert len(np.unique(column[rows])) == 1
    assert (nodes.down_until[nodes.studied] > 0).any()
    assert (nodes.released_at[nodes.studied] > 0).any()


def test_the_stakes_simulated_are_safe_for_honest_nodes() -> None:
    """p · φ · S ≤ profit / 10, per average session, for the noisiest hardware simulated."""
    rules = Rules()
    profit = Nectar((rules.price - rules.cost) * rules.mean_tokens * rules.blocks)
    flagged, largest = Fraction(false_positive(1.05)), Nectar(10 * rules.min_stake)
    assert honest_safe(rules.audit, flagged, largest, profit)


def test_the_faults_planted_make_diligence_pay() -> None:
    rules = Rules()
    missed = Nectar(int(rules.validator_stake * rules.slash_missed))
    reward, cost = Nectar(rules.audit_reward), Nectar(rules.audit_cost)
    assert diligence_pays(rules.planted, reward=reward, stake=missed, cost=cost)
    assert not diligence_pays(Fraction(0), reward=reward, stake=missed, cost=cost)


def test_the_least_stake_grows_with_the_margin() -> None:
    early_exit = next(kind for kind in KINDS if kind.name == "early exit")
    one, three = (least_stake(Rules(), ASSUMED, early_exit, margin=margin) for margin in (1, 3))
    assert 2.9 < three / one < 3.1
    assert three < Rules().min_stake
