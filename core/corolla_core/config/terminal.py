"""Talking to a person or a program: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from getpass import getpass
from pathlib import Path
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.table import Table

from corolla_core.protocol.errors import ConfigError, CorollaError, KeystoreError

_UNBOUNDED = 1000


def notes() -> Console:
    """Where progress, tables about what was done, and errors go."""
    return _console(sys.stderr)


def output() -> Console:
    """Where data goes."""
    return _console(sys.stdout)


def emit(data: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """JSON on one line; or a table: of names and values for one record, of columns for several."""
    if as_json:
        sys.stdout.write(json.dumps(data) + "\n")
        sys.stdout.flush()
        return
    console = output()
    if isinstance(data, Mapping):
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in data.items():
            table.add_row(name.replace("_", " "), _shown(value))
        console.print(table)
    elif data:
        table = Table(box=None, pad_edge=False)
        for name in data[0]:
            table.add_column(name.replace("_", " "))
        for record in data:
            table.add_row(*(_shown(value) for value in record.values()))
        console.print(table)


@contextmanager
def errors() -> Iterator[None]:
    """Every typed error becomes one line on stderr and exit status 1 (2 for a mistake in the settings)."""
    try:
        yield
    except CorollaError as error:
        notes().print(f"error: {error.code}: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from None


def read_password(password_file: Path | None, keystore: Path, *, twice: bool = False) -> str:
    """The first line of the file, or what a person types. Raises KeystoreError where neither can be had."""
    if password_file is not None:
        try:
            return password_file.read_text().splitlines()[0]
        except (OSError, IndexError):
            raise KeystoreError(f"no password in {password_file}") from None
    if not sys.stdin.isatty():
        raise KeystoreError("give --password-file where no one can type a password")
    password = getpass(f"password for {keystore}: ")
    if twice and getpass("the same again: ") != password:
        raise KeystoreError("the two passwords differ")
    return password


def _console(stream: TextIO) -> Console:
    # A pipe or a file has no width to fit into: nothing is cut off there.
    width = None if stream.isatty() else _UNBOUNDED
    return Console(file=stream, width=width, no_color="NO_COLOR" in os.environ or None, highlight=False)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
