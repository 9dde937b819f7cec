"""`corolla attest create|add|revoke|list`: a private swarm, and whom its consortium knows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from corolla_core.protocol.errors import ConfigError, InvalidInput
from corolla_core.protocol.ids import Hash32, address
from corolla_core.protocol.units import UnixTime

if TYPE_CHECKING:
    from corolla.config import ClientSettings
    from corolla_core.chain.network import Network
    from corolla_core.chain.rpc import Chain
    from corolla_core.chain.sender import TransactionSender

app = typer.Typer(help="Whom the consortium of a private swarm knows.", no_args_is_help=True)
Who = Annotated[str, typer.Argument(metavar="ADDRESS", help="Account of a node, a client or a validator.")]
_DAY = 86_400


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the private swarm; its file goes to <home>/networks.")],
    bootstrap: Annotated[
        list[str] | None, typer.Option(help="Multiaddr of a peer to join its own directory by; once for each.")
    ] = None,
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a private swarm on a network's chain. The account speaks for the consortium, until it hands that over."""

    async def run(settings: ClientSettings) -> dict[str, Any]:
        from corolla_core.chain.operators import deploy_operators

        chosen = network_of(settings)
        if name == chosen.name:
            raise ConfigError("a private swarm has a name of its own: its nodes are not to be found under another's")
        named = replace(chosen, name=name, bootstrap=tuple(bootstrap or ()))  # refuses the name before anything is paid
        async with _signing(settings, chosen) as (_, sender):
            operators = await deploy_operators(sender, sender.address)
        path = replace(named, operators=operators).save(home() / "networks")
        return {"network": name, "operators": operators, "owner": sender.address, "file": str(path)}

    with errors():
        settings = settings_of(network=network, account=account, password_file=password_file).settings
        emit(uvloop.run(run(settings)), as_json=as_json)


@app.command()
def add(
    who: Who,
    document: Annotated[
        Path, typer.Option("--document", help="What you keep about who runs it. Only its SHA-256 goes on chain.")
    ],
    days: Annotated[int, typer.Option("--days", min=1, help="How long it holds.")] = 365,
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """Attest an account, or renew it."""

    async def attest(operators: Any) -> None:
        until = UnixTime(await operators.chain.now() + days * _DAY)
        await operators.attest(address(who), _hash(document), until)

    _change(attest, as_json=as_json, network=network, account=account, password_file=password_file)


@app.command()
def revoke(
    who: Who,
    network: NetworkOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an attestation at once: within seconds nobody in the swarm deals with the account."""
    _change(
        lambda operators: operators.revoke(address(who)),
        as_json=as_json, network=network, account=account, password_file=password_file,
    )  # fmt: skip


@app.command("list")
def list_(network: NetworkOption = None, as_json: JsonOption = False) -> None:
    """Who is attested, and until when."""

    async def run(settings: ClientSettings) -> list[dict[str, Any]]:
        from corolla_core.chain.operators import Operators
        from corolla_core.chain.rpc import Chain

        async with await Chain.connect(network_of(settings)) as chain:
            return await _rows(Operators(chain))

    with errors():
        emit(uvloop.run(run(settings_of(network=network).settings)), as_json=as_json)


def _change(act: Callable[[Any], Awaitable[object]], *, as_json: bool, **flags: Any) -> None:
    """Do it as the account, and show who is attested then."""

    async def run(settings: ClientSettings) -> list[dict[str, Any]]:
        from corolla_core.chain.operators import Operators

        async with _signing(settings, network_of(settings)) as (chain, sender):
            operators = Operators(chain, sender)
            await act(operators)
            return await _rows(operators)

    with errors():
        emit(uvloop.run(run(settings_of(**flags).settings)), as_json=as_json)


@asynccontextmanager
async def _signing(settings: ClientSettings, network: Network) -> AsyncIterator[tuple[Chain, TransactionSender]]:
    from corolla_core.chain.rpc import Chain
    from corolla_core.chain.sender import TransactionSender

    signer = signer_of(settings, chain_id=network.chain_id)
    async with await Chain.connect(network) as chain:
        yield chain, TransactionSender(chain, signer)


async def _rows(operators: Any) -> list[dict[str, Any]]:
    now = await operators.chain.now()
    return [
        {
            "account": one.account,
            "metadata": "0x" + one.metadata.hex(),
            "expires": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(one.expiry)),
            "attested": one.expiry >= now,
        }
        for one in await operators.all()
    ]


def _hash(document: Path) -> Hash32:
    from hashlib import sha256

    try:
        return Hash32(sha256(document.read_bytes()).digest())
    except OSError as error:
        raise InvalidInput(f"cannot read {document}: {error.strerror}") from None
