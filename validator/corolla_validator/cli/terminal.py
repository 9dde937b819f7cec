"""Talking to a person or a program: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from corolla_core.protocol.errors import ConfigError, CorollaError


def console(*, stderr: bool = True) -> Console:
    return Console(stderr=stderr, no_color="NO_COLOR" in os.environ or None)


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
    out = console(stderr=False)
    out.print(table)
    for name, value in facts.items():
        out.print(f"{name.replace('_', ' ')} {value}", soft_wrap=True, highlight=False)


@contextmanager
def errors() -> Iterator[None]:
    """Every typed error becomes one line on stderr and exit status 1 (2 for a mistake in the settings)."""
    try:
        yield
    except CorollaError as error:
        console().print(f"[red]error:[/red] {error.code}: {error}", markup=True, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None


@contextmanager
def progress_lines() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing measured, on stderr; nothing at all off a terminal."""
    screen = console()
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
