"""What only the validator's commands show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from corolla_core.config.terminal import notes, output


def emit(facts: Mapping[str, str], rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """One JSON line with the rows under `entries`, or a table of the rows and the facts under it."""
    if as_json:
        sys.stdout.write(json.dumps({**facts, "entries": list(rows)}) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    out = output()
    out.print(table)
    for name, value in facts.items():
        out.print(f"{name.replace('_', ' ')} {value}", soft_wrap=True, highlight=False)


@contextmanager
def progress_lines() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing measured, on stderr; nothing at all off a terminal."""
    screen = notes()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bars:
        known: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield report


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
