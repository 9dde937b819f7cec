"""`validator explorer`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from corolla_core.config.terminal import errors
from corolla_core.protocol.errors import ConfigError
from corolla_validator.cli.audits import DataDir, Json, Model, NetworkOption, folder_of, network_of, settings_of, teller
from corolla_validator.config import ValidatorSettings


def explore(
    model: Model = None,
    network: NetworkOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 for any. [default: 8600]")] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Another name that browsers reach it by; may be given again.")
    ] = None,
    tx_url: Annotated[
        str | None, typer.Option(help="What links to a transaction begin with. [default: no links]")
    ] = None,
    gateway: Annotated[str | None, typer.Option(help="URL of a gateway that answers the playground.")] = None,
    gateway_key_file: Annotated[Path | None, typer.Option(help="File with an API key for it.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show the network to people: who serves what, what audits found, who was punished. Until SIGTERM or SIGINT."""
    with errors():
        settings = settings_of(
            model=model, network=network, explorer_host=host, explorer_port=port, explorer_names=name or None,
            explorer_tx_url=tx_url, explorer_gateway=gateway, explorer_gateway_key_file=gateway_key_file,
            data_dir=data_dir,
        )  # fmt: skip
        asyncio.run(_explore(settings, as_json=as_json))


async def _explore(settings: ValidatorSettings, *, as_json: bool) -> None:
    try:
        from corolla_validator.explorer.server import serve
        from corolla_validator.explorer.serving import exploring
    except ImportError as error:
        raise ConfigError(f"the explorer needs `pip install corolla[web]` ({error.name} is missing)") from None
    from corolla_core.swarm.tcp import listen

    try:
        bound = listen(settings.explorer_host, settings.explorer_port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {settings.explorer_host}:{settings.explorer_port}: {error}") from None
    with bound:
        async with exploring(settings, network_of(settings), folder_of(settings)) as app:
            url = f"http://{settings.explorer_host}:{bound.getsockname()[1]}"
            teller(as_json=as_json)({"event": "ready", "url": url})
            await serve(app, bound)
