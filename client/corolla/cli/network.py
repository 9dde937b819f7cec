"""`corolla network deploy|publish|bootstrap`: what founding a network takes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer
import uvloop

from corolla.cli.context import (
    AccountOption,
    JsonOption,
    NetworkOption,
    PasswordOption,
    network_of,
    settings_of,
    signer_of,
)
from corolla_core.config import home
from corolla_core.config.terminal import emit, errors
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.receipt import NumericClass

app = typer.Typer(help="Found a network: its contracts, its models, its first peer.", no_args_is_help=True)


@app.command()
def deploy(
    name: Annotated[str, typer.Argument(help="The new network's name.")],
    rpc_url: Annotated[str, typer.Option("--rpc-url", help="An endpoint of the chain it is to live on.")],
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deploy the contracts and write the network's file. The account pays the gas, and gets the supply of tokens;
    the governor has everything else."""
    with errors():
        settings = settings_of(account=account, password_file=password_file).settings
        folder = home() / "networks"
        if (folder / f"{name}.json").exists():
            raise ConfigError(f"{folder / name}.json is already there")
        network = uvloop.run(_deploy(settings, name, rpc_url))
        path = network.save(folder)
        emit({"network": network.name, "chain_id": network.chain_id, "file": str(path)}, as_json=as_json)


async def _deploy(settings: Any, name: str, rpc_url: str) -> Any:
    from corolla_core.chain.deploy import chain_id_of, deploy_all

    signer = signer_of(settings, chain_id=await chain_id_of(rpc_url))
    return await deploy_all(rpc_url, signer, name=name)


@app.command()
def publish(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder, hf:org/name, a URL, or smollm2-135m-instruct.")],
    classes: Annotated[
        list[NumericClass] | None,
        typer.Option("--class", help="A class that nodes may compute it in; fp32 without it. May be repeated."),
    ] = None,
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a model's manifest, which is made and put beside the weights if it is not there: their hashes, block by
    block. Whoever does it first owns the name. Nodes and clients need the file as well as the weights."""
    with errors():
        settings = settings_of(network=network, account=account, password_file=password_file).settings
        emit(uvloop.run(_publish(settings, model, classes or [NumericClass.FP32])), as_json=as_json)


async def _publish(settings: Any, model: str, classes: list[NumericClass]) -> dict[str, Any]:
    from corolla_core.chain.models import Models
    from corolla_core.chain.rpc import Chain
    from corolla_core.chain.sender import TransactionSender
    from corolla_core.model.checkpoint import open_checkpoint
    from corolla_core.model.manifest import Manifest, build_manifest
    from corolla_core.model.smollm import NAME, prepare_smollm
    from corolla_core.model.source import MANIFEST_FILE

    network = network_of(settings)
    checkpoint = open_checkpoint(str(prepare_smollm()) if model == NAME else model)
    file = checkpoint.folder / MANIFEST_FILE
    if not file.exists():
        file.write_text(build_manifest(checkpoint).to_json())
    manifest = Manifest.beside(checkpoint)
    async with await Chain.connect(network) as chain:
        models = Models(chain, TransactionSender(chain, signer_of(settings, chain_id=network.chain_id)))
        version = await models.publish(manifest.name, manifest.root, manifest.block_roots, classes)
    return {"model": manifest.name, "version": version.version, "root": "0x" + manifest.root.hex()}


@app.command()
def bootstrap(
    listen: Annotated[
        list[str] | None, typer.Option("--listen", help="A multiaddr, such as /ip4/0.0.0.0/tcp/31330; may be repeated.")
    ] = None,
    public_host: Annotated[
        str | None, typer.Option("--public-host", help="The IPv4 address or name that others reach it at.")
    ] = None,
    network: NetworkOption = None,
) -> None:
    """Run a peer that others join the network through, and write its address into the network's file: hand that out.
    Runs until SIGTERM or SIGINT."""
    with errors():
        settings = settings_of(network=network).settings
        found = network_of(settings)
        uvloop.run(_bootstrap(found, listen, public_host))


async def _bootstrap(network: Any, listen: list[str] | None, public_host: str | None) -> None:
    from corolla_core.swarm.bootstrap import serve

    folder = home() / "networks"

    def ready(maddrs: list[str], peer_id: str) -> None:
        address = maddrs[0] if public_host is None else _at(maddrs[0], public_host)
        others = [known for known in network.bootstrap if not known.endswith(peer_id)]
        path = replace(network, bootstrap=(*others, address)).save(folder)
        sys.stdout.write(json.dumps({"event": "ready", "maddr": address, "peer_id": peer_id, "file": str(path)}) + "\n")
        sys.stdout.flush()

    identity = folder / f"{network.name}-bootstrap.key"
    folder.mkdir(parents=True, exist_ok=True)
    await serve(network=network.name, identity=identity, listen=listen, join=list(network.bootstrap), ready=ready)


def _at(maddr: str, host: str) -> str:
    """The same multiaddr at another host: an IPv4 address, or a name."""
    _, _kind, _old, *rest = maddr.split("/")
    kind = "ip4" if host.replace(".", "").isdigit() else "dns4"
    return "/".join(["", kind, host, *rest])
