"""`corolla gateway`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from corolla.cli.context import (
    AccountOption,
    JsonOption,
    LimitOption,
    MaxPriceOption,
    ModelOption,
    NetworkOption,
    PasswordOption,
    connected,
    settings_of,
)
from corolla.config import ClientSettings
from corolla_core.config.terminal import emit, errors
from corolla_core.protocol.errors import ConfigError


def gateway(
    network: NetworkOption = None,
    model: ModelOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    spending_limit: LimitOption = None,
    max_price: MaxPriceOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    drain_timeout: Annotated[
        float | None, typer.Option(help="Seconds that running answers get to end on SIGTERM.")
    ] = None,
    keys: Annotated[
        bool | None, typer.Option("--keys", help="Answer only those who have a key; see `gateway-keys`.")
    ] = None,
    books: Annotated[str | None, typer.Option(help="The keys' database: a file or URL.")] = None,
    policy: Annotated[Path | None, typer.Option(help="TOML file: where requests may run, in order.")] = None,
    streams: Annotated[int | None, typer.Option(help="Texts made at the same time.")] = None,
    key_streams: Annotated[int | None, typer.Option(help="And of one key.")] = None,
    waiting: Annotated[int | None, typer.Option(help="Requests that may wait for room.")] = None,
    patience: Annotated[float | None, typer.Option(help="And for how many seconds.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve OpenAI's API over the network, paid from the account's deposit, until SIGTERM or SIGINT."""
    with errors():
        settings = settings_of(
            network=network, model=model, account=account, password_file=password_file, spending_limit=spending_limit,
            max_price=max_price, gateway_host=host, gateway_port=port, gateway_drain=drain_timeout,
            gateway_keys=keys, gateway_books=books, gateway_policy=policy, gateway_streams=streams,
            gateway_key_streams=key_streams, gateway_waiting=waiting, gateway_patience=patience,
        ).settings  # fmt: skip
        uvloop.run(_gateway(settings, as_json=as_json))


async def _gateway(settings: ClientSettings, *, as_json: bool) -> None:
    try:
        from corolla.gateway.assembly import assembled
        from corolla.gateway.serve import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"the gateway needs {error.name}: pip install 'corolla[web]'") from None

    async with assembled(settings, functools.partial(connected, with_model=True)) as made:

        def ready(url: str) -> None:
            account = made.accounts[0] if made.accounts else None
            emit({"gateway": url, "models": list(made.models), "account": account}, as_json=as_json)

        await serve(
            made.app,
            host=settings.gateway_host,
            port=settings.gateway_port,
            drain_timeout=settings.gateway_drain,
            on_ready=ready,
        )
