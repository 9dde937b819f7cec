"""What `make bench` writes down."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from benchmarks.chart import draw, ratios
from benchmarks.prompts import Prompts
from benchmarks.record import keep, load, record, save, show
from benchmarks.report import lines, put
from benchmarks.swarm import NODES, split
from benchmarks.targets import Target, target_of
from rich.console import Console


def test_a_record_compares_with_its_baseline() -> None:
    assert record("decode", 9.0, "tok/s", baseline=10.0).ratio == 0.9
    alone = record("overhead", 1.25, "ms")
    assert (alone.baseline, alone.ratio) == (None, None)


def test_results_have_the_agreed_fields(tmp_path: Path) -> None:
    save([record("decode", 9.0, "tok/s", baseline=10.0)], tmp_path / "results.json")
    [saved] = json.loads((tmp_path / "results.json").read_text())
    assert set(saved) == {"name", "value", "unit", "baseline", "ratio", "command", "machine"}
    assert saved["machine"]


def test_the_table_shows_every_measure() -> None:
    out = io.StringIO()
    show([record("decode", 9.0, "tok/s", baseline=10.0), record("overhead", 1.25, "ms")], Console(file=out, width=100))
    assert all(text in out.getvalue() for text in ("decode", "0.900", "overhead", "1.25"))


def test_the_parts_of_a_token_add_up_to_its_time() -> None:
    node = {
        "compute": 20.0,
        "overhead": 1.0,
        "decode": 0.2,
        "encode": 0.1,
        "queue": 0.3,
        "deliver": 0.3,
        "send": 0.0,
        "pay": 0.1,
        "voucher": 0.8,
        "receipt": 0.15,
    }
    records = {each.name: each.value for each in split(0.050, 0.045, [node] * NODES, ends=0.005, promising=0.001)}
    assert records["a link: network and event loops, by difference"] == pytest.approx((50 - 2 * 21 - 5) / 3, abs=1e-3)
    assert records["overhead a hop, all in: (swarm - plain) / hops"] == pytest.approx(2.5)
    assert records["a hop: payment check and voucher, spread over its chunk"] == pytest.approx(0.2)
    assert records["a hop: receipt, signed and its rows kept, spread over its chunk"] == pytest.approx(0.15)
    assert records["payment's share of the time a token"] == pytest.approx(100 * 2 * (0.2e-3 + 1e-3 / 8) / 0.05)


def test_a_passage_is_as_long_as_asked_but_no_longer() -> None:
    prompts = Prompts(lambda text: range(len(text.split())))
    passage, other = (prompts.passage(500, chapter=chapter) for chapter in (1, 2))
    assert 450 < len(passage.ids) <= 500
    assert passage.text.split()[0] != other.text.split()[0]


def test_a_command_puts_its_records_in_the_place_of_its_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    keep([record("decode", 1.0, "tok/s"), record("prefill", 2.0, "tok/s")], path, command="a")
    keep([record("stop", 3.0, "s")], path, command="b")
    keep([record("decode", 4.0, "tok/s")], path, command="a")
    assert [(each.name, each.value, each.command) for each in load(path)] == [("stop", 3.0, "b"), ("decode", 4.0, "a")]


def test_a_target_is_a_bound_on_what_it_names() -> None:
    targets = (Target("decode.*", "ratio", least=0.9), Target("overhead", "value", most=1))
    slow, fast = (record("decode, two", value, "tok/s", baseline=10.0) for value in (8.9, 9.0))
    target = target_of(slow, targets)
    assert target is not None
    assert (target.reached(slow), target.reached(fast)) == (False, True)
    assert target_of(record("overhead a hop", 2.0, "ms"), targets) is None
    assert not targets[1].reached(record("overhead", 1.01, "ms"))


def test_the_report_has_every_measure_once_and_says_which_target_is_missed() -> None:
    records = [
        record("decode, two nodes, against plain transformers", 9.0, "tok/s", baseline=10.0),
        record("overhead a hop, all in", 0.5, "ms"),
        record("first token", 1.0, "s", baseline=2.0),
    ]
    said = "\n".join(lines(records))
    assert all(said.count(each.name) == 1 for each in records)
    assert "| 9 tok/s | 10 | 0.90 | ≥ 0.97 | **missed** |" in said
    assert "| 0.5 ms |  |  | ≤ 0.7 ms | met |" in said
    assert "| 1 s | 2 | 0.50 |" in said
    assert "load average" in said


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = "# Page\n<!-- results.json -->\nold\n<!-- end -->\nmore\n"
    once = put("new", page)
    assert once == page.replace("old", "new")
    assert put("new", once) == once


def test_the_chart_has_a_bar_for_each_speed_beside_another(tmp_path: Path) -> None:
    records = [record("decode", 9.0, "tok/s", baseline=10.0), record("stop", 1.0, "s"), record("alone", 2.0, "tok/s")]
    assert [each.name for each in ratios(records)] == ["decode"]
    draw(records, tmp_path / "img" / "chart.png")
    assert (tmp_path / "img" / "chart.png").read_bytes().startswith(b"\x89PNG")
