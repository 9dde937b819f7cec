"""One measure, as `results.json` keeps it and the table shows it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Record:
    """`ratio` is value / baseline; both are None where there is nothing to compare with."""

    name: str
    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    command: str
    machine: str


def record(name: str, value: float, unit: str, *, baseline: float | None = None, command: str = "make bench") -> Record:
    ratio = round(value / baseline, 4) if baseline else None
    rounded = None if baseline is None else round(baseline, 4)
    return Record(name, round(value, 4), unit, rounded, ratio, command, machine())


def machine() -> str:
    """The processor, its cores, and how busy they were when asked."""
    name = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.system()} {platform.release()}"


def save(records: Sequence[Record], path: Path) -> None:
    path.write_text(json.dumps([asdict(each) for each in records], indent=2) + "\n")


def load(path: Path) -> list[Record]:
    """What `save` wrote; nothing where there is no file."""
    return [Record(**each) for each in json.loads(path.read_text())] if path.exists() else []


def keep(records: Sequence[Record], path: Path, *, command: str) -> None:
    """Put the records of a command in the place of those that it wrote before, the others staying."""
    others = [each for each in load(path) if each.command != command]
    save([*others, *(replace(each, command=command) for each in records)], path)


def show(records: Sequence[Record], console: Console, *, title: str = "Benchmarks") -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    for heading in ("value", "unit", "baseline", "ratio"):
        table.add_column(heading, justify="right" if heading != "unit" else "left")
    for each in records:
        baseline = "" if each.baseline is None else f"{each.baseline:g}"
        ratio = "" if each.ratio is None else f"{each.ratio:.3f}"
        table.add_row(each.name, f"{each.value:g}", each.unit, baseline, ratio)
    console.print(table)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
