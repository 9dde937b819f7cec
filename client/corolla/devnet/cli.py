"""`corolla devnet up|deploy|down|status|fund|logs`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from corolla.devnet.process import tail
from corolla.devnet.state import DevnetState
from corolla.devnet.teardown import stop_devnet
from corolla_core.config import home, keystore_path
from corolla_core.protocol.errors import ConfigError, CorollaError
from corolla_core.protocol.ids import Address

app = typer.Typer(help="A whole network on this machine, to try things on.", no_args_is_help=True)
_LINES = 40


@app.command()
def up(
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes share the model's blocks.")] = 3,
    standbys: Annotated[int, typer.Option(min=0, help="How many of them have a standby with the same blocks.")] = 0,
    validators: Annotated[int, typer.Option(min=0, help="How many validators audit the nodes.")] = 0,
    model: Annotated[str | None, typer.Option(help="A checkpoint's folder; SmolLM2-135M-Instruct without it.")] = None,
    price: Annotated[int | None, typer.Option(min=0, help="Base units per token and block.")] = None,
) -> None:
    """Start a chain, deploy the contracts, publish the model and start the nodes; leave them running."""
    # These bring torch with them; `down` and `logs` should not wait for that.
    from corolla.devnet.devnet import DEFAULT_PRICE, Devnet, DevnetPlan
    from corolla.devnet.split import split_evenly
    from corolla_core.model.checkpoint import open_checkpoint
    from corolla_core.model.smollm import prepare_smollm

    out = Console(stderr=True)

    async def start() -> DevnetState:
        checkpoint = model or str(prepare_smollm())
        spans = split_evenly(open_checkpoint(checkpoint).num_blocks, nodes)
        if standbys > nodes:
            raise ConfigError(f"{standbys} standbys for {nodes} nodes: each node has one at most")
        plan = DevnetPlan(
            model=checkpoint,
            spans=spans,
            standbys=spans[:standbys],
            price=DEFAULT_PRICE if price is None else price,
            validators=validators,
        )
        devnet = Devnet(plan, home=home(), detached=True, progress=lambda what: out.print(f"  {what} …", style="dim"))
        await devnet.start()
        await devnet.leave()
        return _require_state()

    try:
        state = asyncio.run(start())
    except CorollaError as error:
        out.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    _show(state, out)
    out.print("Try: [bold]corolla chat --network devnet[/bold]; stop it with [bold]corolla devnet down[/bold].")


@app.command()
def deploy(
    rpc: Annotated[str, typer.Option(help="The chain: one of Ganache's or Anvil's, on a devnet's chain id.")],
    bootstrap: Annotated[str, typer.Option(help="Where nodes join, such as /dns4/bootstrap/tcp/31400.")],
    account: Annotated[list[str], typer.Option(help="A name for a funded account; may be given again.")],
    model: Annotated[str | None, typer.Option(help="A checkpoint's folder; SmolLM2-135M-Instruct without it.")] = None,
) -> None:
    """On a chain that runs already: contracts, model, accounts in <home>/keys and the file in <home>/networks."""
    from corolla.devnet.deployment import Deployment
    from corolla.devnet.deployment import deploy as deployed
    from corolla_core.config.terminal import errors
    from corolla_core.model.smollm import prepare_smollm

    out = Console(stderr=True)
    with errors():
        plan = Deployment(rpc, model or str(prepare_smollm()), tuple(account), bootstrap)
        network = asyncio.run(deployed(plan, home=home(), progress=lambda what: out.print(f"  {what} …", style="dim")))
    sys.stdout.write(f"{home() / 'networks' / (network.name + '.json')}\n")


@app.command()
def down() -> None:
    """Stop it: nodes finish their sessions and redeem, then everything ends."""
    stopped = asyncio.run(stop_devnet(home() / "devnet"))
    Console(stderr=True).print(f"stopped {', '.join(stopped)}" if stopped else "no devnet was running")


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Its processes, accounts and endpoints."""
    state = _require_state()
    if as_json:
        running = {child.name: child.running() for child in state.children}
        sys.stdout.write(json.dumps({**dataclasses.asdict(state), "running": running}) + "\n")
        return
    _show(state, Console())


@app.command()
def fund(
    account: Annotated[str, typer.Argument(help="A keystore's name in <home>/keys, its path, or an address.")],
) -> None:
    """Give an account tokens and gas money of the devnet."""
    from corolla.devnet.funding import FUNDS
    from corolla_core.chain.keystore import account_address
    from corolla_core.protocol.ids import address
    from corolla_core.protocol.units import nectar_to_text

    path = keystore_path(account)
    try:
        who = account_address(path) if path.exists() else address(account)
        asyncio.run(_fund(Path(_require_state().network), who))
    except CorollaError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        raise typer.Exit(1) from None
    Console(stderr=True).print(f"{who} has {nectar_to_text(FUNDS)} tokens and gas money more", highlight=False)


async def _fund(network: Path, who: Address) -> None:
    from corolla.devnet.funding import fund
    from corolla_core.chain.devnet_keys import devnet_signer
    from corolla_core.chain.network import Network
    from corolla_core.chain.rpc import Chain
    from corolla_core.chain.sender import TransactionSender

    async with await Chain.connect(Network.load(network)) as chain:
        await fund(TransactionSender(chain, devnet_signer(0)), who)


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="`ganache`, `bootstrap`, `node-0` …; all without it.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as it is written.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0)] = _LINES,
) -> None:
    """The end of the processes' logs."""
    children = _require_state().children
    chosen = [child for child in children if name in (None, child.name)]
    if not chosen:
        names = ", ".join(child.name for child in children)
        Console(stderr=True).print(f"no process {name!r}; there are {names}", style="red", markup=False)
        raise typer.Exit(1)
    for child in chosen:
        if text := tail(Path(child.log), lines):
            head = "" if len(chosen) == 1 else f"==> {child.name}\n"
            sys.stdout.write(f"{head}{text}\n")
    if follow:
        _follow({child.name: Path(child.log) for child in chosen})


def _follow(logs: dict[str, Path]) -> None:
    prefix = len(logs) > 1
    files = {name: path.open("rb") for name, path in logs.items() if path.exists()}
    try:
        for file in files.values():
            file.seek(0, 2)
        while True:
            quiet = True
            for name, file in files.items():
                for line in file.readlines():
                    sys.stdout.write((f"{name}: " if prefix else "") + line.decode(errors="replace"))
                    quiet = False
            sys.stdout.flush()
            if quiet:
                time.sleep(0.2)
    except KeyboardInterrupt:
        return
    finally:
        for file in files.values():
            file.close()


def _require_state() -> DevnetState:
    state = DevnetState.load(home() / "devnet")
    if state is None:
        Console(stderr=True).print("no devnet is running; start one with `corolla devnet up`", style="red")
        raise typer.Exit(1)
    return state


def _show(state: DevnetState, out: Console) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("process", "pid", "state", "blocks", "account"):
        table.add_column(column, no_wrap=True)
    nodes = {node.name: node for node in state.nodes}
    for child in state.children:
        node = nodes.get(child.name)
        row = (node.span, node.account) if node else ("", "")
        table.add_row(child.name, str(child.pid), "up" if child.running() else "gone", *row)
    out.print(table)
    out.print(f"network  {state.network}\nrpc      {state.rpc_url}\nclient   {state.client_account}", highlight=False)
