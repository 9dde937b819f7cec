"""How those that are compared take turns, and what is made of their times."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from benchmarks.far import distances
from benchmarks.hops import chain
from benchmarks.kills import Stop, stopped, timed
from benchmarks.prompts import Prompt
from benchmarks.rivals import lines
from benchmarks.rivals.petals import write_checkpoint
from benchmarks.rivals.rival import TimedRun
from benchmarks.stream import OURS, speeds
from benchmarks.turns import Contestant, Meaningless, briefly, first_seconds, take_turns, token_seconds
from benchmarks.wan import Wan

PROMPT = Prompt("a", (1,))


def contestant(name: str, ids: tuple[int, ...], seconds: list[float], seen: list[str]) -> Contestant:
    """Each run's decoding takes the next of `seconds`."""
    times = iter(seconds)

    async def run(prompt: Prompt, tokens: int) -> TimedRun:
        seen.append(name)
        return TimedRun(ids[:tokens], prefill=1.0, decode=next(times))

    return run


@pytest.mark.anyio
async def test_they_take_turns_and_the_round_that_warms_up_is_not_counted() -> None:
    seen: list[str] = []
    both = {name: contestant(name, (5, 6, 7), [99.0, 2.0, 4.0], seen) for name in "AB"}
    runs = await take_turns(both, [PROMPT] * 3, 3)
    assert "".join(seen) == "ABABAB"
    assert token_seconds(runs["A"]) == 1.5
    assert first_seconds(runs["B"]) == 1.0


@pytest.mark.anyio
async def test_a_race_of_two_that_say_different_things_counts_for_nothing() -> None:
    racing = {"A": contestant("A", (5, 6, 7), [1.0], []), "B": contestant("B", (5, 6, 8), [1.0], [])}
    with pytest.raises(Meaningless, match="B says"):
        await take_turns(racing, [PROMPT] * 2, 3)


@pytest.mark.anyio
async def test_a_slow_one_may_say_less_but_not_something_else() -> None:
    first = contestant("A", (5, 6, 7, 8), [1.0, 1.0], [])
    slow = briefly(contestant("B", (5, 6, 9, 9), [3.0, 3.0], []), part=2)
    runs = await take_turns({"A": first, "B": slow}, [PROMPT] * 2, 4)
    assert token_seconds(runs["B"]) == 3.0


def test_a_rival_generates_as_many_tokens_as_it_is_asked_for_and_no_more() -> None:
    made = []

    def generate(prompt: list[int], tokens: int) -> Generator[int, None, None]:
        while True:
            made.append(len(made))
            yield prompt[0]

    assert lines.timed(generate, [7], 3)["ids"] == [7, 7, 7]
    assert len(made) == 3


def test_a_stop_is_the_sum_of_its_parts() -> None:
    events = ((1.5, "lost a node"), (2.0, "every block is served"), (4.0, "the chain is whole"))
    logs = [{"event": event, "at": at} for at, event in events]
    assert timed(logs[:2], 1.0, 4.5) is None
    stop = timed(logs, 1.0, 4.5)
    assert stop == Stop(noticing=0.5, opening=0.5, replay=2.0, redo=0.5)
    values = [each.value for each in stopped(100, [stop] * 3)]
    assert values == [3.5, 1.5, 0.5, 0.5, 2.0, 0.5]


def test_a_longer_chain_spreads_its_overhead_over_its_hops() -> None:
    speed, overhead = chain(4, 0.068, 0.060)
    assert speed.ratio == pytest.approx(60 / 68, abs=1e-3)
    assert overhead.value == pytest.approx(2.0)


def test_over_a_wan_the_lines_are_part_of_what_nothing_can_beat() -> None:
    def runs(seconds: float) -> list[TimedRun]:
        return [TimedRun((1, 2), prefill=0.0, decode=seconds)]

    times = {"two nodes": runs(0.15), "plain transformers": runs(0.045)}
    [alone] = distances(Wan(0.05), times)
    assert alone.ratio == pytest.approx((0.045 + 1.5 * 0.05) / 0.15, abs=1e-3)
    beside = distances(Wan(0.05), {**times, "Petals": runs(0.3)})[1]
    assert beside.ratio == pytest.approx(2.0)


def test_ours_is_compared_with_each_of_the_others_twice() -> None:
    fast, slow = ([TimedRun((1, 2), prefill=time, decode=time)] for time in (0.1, 0.2))
    names = {each.name: each.ratio for each in speeds({OURS: fast, "B": slow}, {OURS: slow, "B": fast}, 10)}
    assert names == {"decode, two nodes, against B": 2.0, "prefill of 10, two nodes, against B": 0.5}


def test_petals_reads_the_same_rope_base(tmp_path: Path) -> None:
    """Its transformers knows `rope_parameters` not, and would compute another model without a word."""
    ours = tmp_path / "ours"
    ours.mkdir()
    config = {"rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}, "dtype": "float32"}
    (ours / "config.json").write_text(json.dumps(config))
    (ours / "model.safetensors").write_bytes(b"weights")
    write_checkpoint(ours, tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "config.json").read_text()) == {
        "rope_theta": 100000.0,
        "torch_dtype": "float32",
    }
    assert (tmp_path / "theirs" / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((ours / "config.json").read_text()) == config
