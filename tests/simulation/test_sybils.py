"""Being many earns nothing: one machine and one stake as one identity and as sixteen, in the same worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.market.rules import Rules
from benchmarks.sybils import COMMAND, Split, compare, ratio, records, table
from rich.console import Console
from tests.simulation.table import ASSUMED

SMALL = Rules(nodes=120, sessions=120, epochs=50, clients=24, machines=12)
SEEDS = range(4)


def sixteen(rules: Rules) -> Split:
    _one, many = compare("as tested", rules, ASSUMED, SEEDS, (1, 16))
    return many


def test_many_identities_with_a_good_name_each_gain_nothing_over_one_with_the_same_stake() -> None:
    many = sixteen(SMALL)
    assert many.sessions > 100
    assert many.more.high < 0.05
    assert many.gain.high < 0.05


def test_new_identities_lose_for_each_must_earn_its_name() -> None:
    many = sixteen(replace(SMALL, machines_new=True, epochs=70))
    assert many.more.high < -0.1
    assert many.gain.high < 0


def test_cheating_from_many_identities_loses() -> None:
    (many,) = compare("as tested", replace(SMALL, machines_cheat=True), ASSUMED, SEEDS, (16,))
    assert many.net < 0


def test_the_experiment_can_fail_where_clients_take_unmeasured_nodes_to_be_near_splitting_pays() -> None:
    assert sixteen(replace(SMALL, unmeasured=0.02)).more.low > 0.02


def test_an_interval_holds_the_mean_and_grows_with_the_noise() -> None:
    of = np.full(8, 10.0)
    quiet, loud = ratio(np.full(8, 1.0), of), ratio(np.array([-9.0, 11.0] * 4), of)
    assert (quiet.low, quiet.mean, quiet.high) == pytest.approx((0.1, 0.1, 0.1))
    assert loud.low < 0 < loud.mean < loud.high


def test_the_report_tells_of_every_split() -> None:
    found = list(compare("as tested", replace(SMALL, epochs=4), ASSUMED, range(1), (1, 2)))
    assert {each.command for each in records(found)} == {COMMAND}
    assert len({each.name for each in records(found)}) == 2 * 7
    console = Console(width=160, record=True, quiet=True)
    with console.capture() as shown:
        console.quiet = False
        console.print(table(found))
    assert "as tested" in shown.get()
