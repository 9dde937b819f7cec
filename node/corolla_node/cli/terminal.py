"""Talking to a person or a program: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from getpass import getpass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from corolla_core.protocol.errors import ConfigError, CorollaError, KeystoreError


def console() -> Console:
    return Console(stderr=True, no_color="NO_COLOR" in os.environ or None)


def emit(data: Mapping[str, Any], *, as_json: bool) -> None:
    """One JSON line, or a table of names and values."""
    if as_json:
        sys.stdout.write(json.dumps(data) + "\n")
        sys.stdout.flush()
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in data.items():
        table.add_row(name.replace("_", " "), json.dumps(value) if isinstance(value, (dict, list)) else str(value))
    Console(no_color="NO_COLOR" in os.environ or None).print(table)


@contextmanager
def errors() -> Iterator[None]:
    """Every typed error becomes one line on stderr and exit status 1 (2 for a mistake in the settings)."""
    try:
        yield
    except CorollaError as error:
        console().print(f"[red]error:[/red] {error.code}: {error}", markup=True, highlight=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None


def read_password(password_file: Path | None, keystore: Path) -> str:
    """The first line of the file, or what a person types. Raises KeystoreError where neither can be had."""
    if password_file is not None:
        try:
            return password_file.read_text().splitlines()[0]
        except (OSError, IndexError):
            raise KeystoreError(f"no password in {password_file}") from None
    if not sys.stdin.isatty():
        raise KeystoreError("give --password-file where no one can type a password")
    return getpass(f"password for {keystore}: ")


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be undone. Raises ConfigError where nobody can answer; exits on no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{question} Say --yes where no one can answer.")
    typer.confirm(question, abort=True, err=True)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per phase on stderr; nothing at all off a terminal."""
    screen = console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bars:
        known: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield report
