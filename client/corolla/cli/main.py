"""`corolla`: text from a network of paid machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
import uvloop

from corolla.cli import account, attest, gateway, gateway_keys, money, network, text
from corolla.cli.context import JsonOption, NetworkOption, network_of, settings_of
from corolla.devnet.cli import app as devnet_app
from corolla_core.config.terminal import emit, errors
from corolla_core.protocol.finding import rows

app = typer.Typer(
    name="corolla",
    help="Run large language models on a network of machines, and pay them per token.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The settings and where they come from.", no_args_is_help=True)
app.command()(text.generate)
app.command()(text.chat)
app.command()(gateway.gateway)
money.add_to(app)
app.add_typer(account.app, name="account")
app.add_typer(attest.app, name="attest")
app.add_typer(config_app, name="config")
app.add_typer(network.app, name="network")
app.add_typer(gateway_keys.app, name="gateway-keys")
app.add_typer(devnet_app, name="devnet")


@app.command()
def models(network: NetworkOption = None, as_json: JsonOption = False) -> None:
    """The models published on the network."""
    with errors():
        settings = settings_of(network=network).settings
        emit(uvloop.run(_models(network_of(settings))), as_json=as_json)


async def _models(network: Any) -> list[dict[str, Any]]:
    from corolla.catalogue import published_models
    from corolla_core.chain.rpc import Chain

    async with await Chain.connect(network) as chain:
        return [
            {
                "name": model.name,
                "version": model.version.version,
                "blocks": len(model.version.block_roots),
                "classes": ", ".join(model.version.numeric_classes),
                "root": "0x" + model.version.manifest_root.hex(),
            }
            for model in await published_models(chain)
        ]


@app.command()
def doctor(network: NetworkOption = None, as_json: JsonOption = False) -> None:
    """Look for what may be wrong, and say what to do about it. Exit status 1 when something is."""
    with errors():
        from corolla.cli.doctor import examine

        findings = uvloop.run(examine(settings_of(network=network).settings))
        emit(rows(findings), as_json=as_json)
    if any(f.state == "bad" for f in findings):
        raise typer.Exit(1)


@config_app.command("show")
def config_show(as_json: JsonOption = False) -> None:
    """Every setting, its value, and the layer it came from."""
    with errors():
        table = settings_of().table()
        values = {row.name: str(row.value) if isinstance(row.value, Path) else row.value for row in table}
        if as_json:
            emit({row.name: {"value": values[row.name], "source": row.source} for row in table}, as_json=True)
        else:
            emit([{"name": row.name, "value": values[row.name], "source": row.source} for row in table], as_json=False)


if __name__ == "__main__":
    app()
