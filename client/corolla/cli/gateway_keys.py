"""`corolla gateway-keys add|list|revoke`: who may use the gateway, and how much each may spend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from corolla.cli.context import JsonOption, settings_of
from corolla_core.config import home
from corolla_core.config.terminal import emit, errors, notes
from corolla_core.protocol.units import UnixTime, nectar_from_text, nectar_to_text

if TYPE_CHECKING:
    from corolla_core.store.gateway_store import GatewayStore

app = typer.Typer(help="The gateway's API keys and their budgets.", no_args_is_help=True)

LabelArgument = Annotated[str, typer.Argument(help="A name for the key's holder, one for each key.")]
BooksOption = Annotated[
    str | None,
    typer.Option("--books", help="The keys' database: a file or URL."),
]


@app.command()
def add(
    label: LabelArgument,
    budget: Annotated[
        str | None, typer.Option(help="The most it may spend, in whole tokens; no limit without.")
    ] = None,
    daily: Annotated[bool, typer.Option("--daily", help="The budget is for each day (UTC), not for all time.")] = False,
    days: Annotated[float | None, typer.Option(min=0, max=36500, help="It expires after so many days.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Its requests never leave the private swarm, whatever they say.")
    ] = False,
    books: BooksOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""
    from corolla.gateway.keys import new_key

    with errors(), _books(books) as store:
        now = UnixTime(int(time.time()))
        made = new_key(
            label,
            now=now,
            budget=None if budget is None else nectar_from_text(budget),
            daily=daily,
            private=private,
            expires_at=None if days is None else UnixTime(now + int(timedelta(days=days).total_seconds())),
        )
        store.add(made.key)
        emit({"label": label, "key": made.secret}, as_json=as_json)
        notes().print("keep the key now: it is not shown again", style="dim")


@app.command("list")
def list_(books: BooksOption = None, as_json: JsonOption = False) -> None:
    """Every key, its budget, and what it spent. Keys themselves are nowhere to be shown from."""
    with errors(), _books(books) as store:
        now = UnixTime(int(time.time()))
        rows = [
            {
                "label": key.label,
                "key": f"{key.hint}…",
                "state": key.state(now),
                "budget": None if key.budget is None else nectar_to_text(key.budget),
                "per": "day" if key.daily else "all time",
                "spent": nectar_to_text(key.spent_ever),
                "spent_now": nectar_to_text(key.spent_in(key.period(now))),
                "reserved": nectar_to_text(reserved),
                "private": key.private,
                "expires": None if key.expires_at is None else datetime.fromtimestamp(key.expires_at, UTC).isoformat(),
            }
            for key, reserved in store.listed()
        ]
        emit(rows, as_json=as_json)


@app.command()
def revoke(label: LabelArgument, books: BooksOption = None, as_json: JsonOption = False) -> None:
    """From now on the gateway refuses this key. Requests that run end as they would."""
    with errors(), _books(books) as store:
        store.revoke(label, now=UnixTime(int(time.time())))
        emit({"label": label, "state": "revoked"}, as_json=as_json)


@contextmanager
def _books(url: str | None) -> Iterator[GatewayStore]:
    from corolla.gateway.ledger import BOOKS
    from corolla_core.store.gateway_store import GatewayStore
    from corolla_core.store.store import Store

    books = settings_of(gateway_books=url).settings.gateway_books
    with Store.open(books or home() / BOOKS) as store:
        yield GatewayStore(store)
