"""`corolla gateway`."""

from __future__ import annotations

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
    as_json: JsonOption = False,
) -> None:
    """Serve OpenAI's API over the network, paid from the account's deposit, until SIGTERM or SIGINT."""
    with errors():
        settings = settings_of(
            network=network, model=model, account=account, password_file=password_file, spending_limit=spending_limit,
            max_price=max_price, gateway_host=host, gateway_port=port, gateway_drain=drain_timeout,
        ).settings  # fmt: skip
        uvloop.run(_gateway(settings, as_json=as_json))


async def _gateway(settings: ClientSettings, *, as_json: bool) -> None:
    try:
        from corolla.gateway.app import create_app
        from corolla.gateway.serve import serve
    except ModuleNotFoundError as error:
        raise ConfigError(f"the gateway needs {error.name}: pip install 'corolla[web]'") from None
    from corolla.gateway.swarm import SwarmBackend

    async with connected(settings, with_model=True) as client:
        backend = SwarmBackend(client)

        def ready(url: str) -> None:
            emit({"gateway": url, "models": list(backend.models), "account": client.account}, as_json=as_json)

        await serve(
            create_app(backend),
            host=settings.gateway_host,
            port=settings.gateway_port,
            drain_timeout=settings.gateway_drain,
            on_ready=ready,
        )
