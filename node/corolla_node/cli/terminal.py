"""What only the node's commands say to a person."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from corolla_core.config.terminal import notes
from corolla_core.protocol.errors import ConfigError


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
    screen = notes()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as bars:
        known: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield report
