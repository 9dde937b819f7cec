"""What `make bench` writes down."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from benchmarks.record import record, save, show
from benchmarks.swarm import NODES, passage, split
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
    def words(text: str) -> list[int]:
        return list(range(len(text.split())))

    assert 450 < len(words(passage(500, words))) <= 500
