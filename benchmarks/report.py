"""`python -m benchmarks.report`: `results.json` as tables; with `--write` in docs/benchmarks.md, untyped by anyone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.record import Record, load
from benchmarks.targets import target_of

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_BEGIN, _END = "<!-- results.json -->", "<!-- end -->"


def lines(records: Sequence[Record]) -> Iterator[str]:
    """The machine, the measures that have a target, and then all the others."""
    yield from machines(records)
    aimed = [each for each in records if target_of(each)]
    yield from ("", "| | measured | baseline | ratio | target | |", "|---|---|---|---|---|---|")
    for each in aimed:
        target = target_of(each)
        assert target is not None
        verdict = "met" if target.reached(each) else "**missed**"
        what = "" if target.of == "ratio" else f" {each.unit}"
        yield f"| {_cells(each)} | {target}{what} | {verdict} |"
    yield from ("", "| | measured | baseline | ratio |", "|---|---|---|---|")
    for each in records:
        if each not in aimed:
            yield f"| {_cells(each)} |"


def machines(records: Iterable[Record]) -> Iterator[str]:
    """Every machine with the loads it was under."""
    loads: dict[str, list[float]] = {}
    for each in records:
        load_then = re.search(r", load ([0-9.]+)", each.machine)
        if load_then is not None:
            loads.setdefault(each.machine.replace(load_then.group(), ""), []).append(float(load_then.group(1)))
    for name, then in loads.items():
        yield f"{name}; load average {min(then):g} to {max(then):g}."


def _cells(each: Record) -> str:
    baseline = "" if each.baseline is None else f"{each.baseline:.3g}"
    ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
    return f"{each.name} | {each.value:.3g} {each.unit} | {baseline} | {ratio}"


def put(table: str, page: str) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(_BEGIN)
    _old, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--write", action="store_true")
    table = "\n".join(lines(load(RESULTS)))
    if parser.parse_args().write:
        PAGE.write_text(put(table, PAGE.read_text()))
    else:
        print(table)


if __name__ == "__main__":
    main()
