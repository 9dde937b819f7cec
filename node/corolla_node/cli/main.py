"""`node` (and its unambiguous alias `corolla-node`): serve blocks of a model, and be paid for it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from corolla_core.config import Loaded, home, keystore_path, load_settings, setup_logging
from corolla_core.config.terminal import emit, errors, read_password
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.finding import rows
from corolla_node.cli import cooperative as cooperatives
from corolla_node.cli import money
from corolla_node.cli.terminal import progress_bars
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir

app = typer.Typer(
    name="node",
    help="Serve blocks of a large language model, and be paid for it. Anything but these commands goes to Node.js.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The settings and where they come from.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(cooperatives.app, name="cooperative")
money.add_to(app)

DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="The node's own folder. [default: <home>/node]", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def settings_of(**flags: Any) -> Loaded[NodeSettings]:
    return load_settings(NodeSettings, flags=flags)


def data_dir_of(settings: NodeSettings) -> DataDir:
    return DataDir((settings.data_dir or home() / "node").expanduser().absolute())


@app.command()
def up(
    model: Annotated[
        str | None, typer.Argument(help="A directory, hf:org/name, a URL, or smollm2-135m-instruct.")
    ] = None,
    blocks: Annotated[str | None, typer.Option(help="start:end, or auto: what the swarm lacks most.")] = None,
    max_blocks: Annotated[int | None, typer.Option(help="With auto: at most so many blocks.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1…, or auto: a card if it can, else cpu.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16, int8 or auto.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with. [default: usable cores]")] = None,
    price: Annotated[int | None, typer.Option(help="Base units of Nectar (10^-18) per token and block.")] = None,
    account: Annotated[
        Path | None, typer.Option(help="Keystore of the node: a name in <home>/keys, or a path.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the keystore's password.")] = None,
    owner: Annotated[str | None, typer.Option(help="Who owns the stake. [default: the account]")] = None,
    cooperative: Annotated[
        str | None, typer.Option(help="Address of the cooperative whose node this is, and whose stake it serves with.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="A network's name or file.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    public_host: Annotated[str | None, typer.Option(help="Address others reach it at. [default: --host]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    stake: Annotated[str | None, typer.Option(help="Tokens to have staked. [default: the network's minimum]")] = None,
    kv_budget: Annotated[str | None, typer.Option(help="Memory for sessions, such as 2GiB.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Serve Prometheus /metrics there; 0 takes a free port.")
    ] = None,
    drain_timeout: Annotated[float | None, typer.Option(help="Seconds sessions get to end on SIGTERM.")] = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Stake, load blocks and serve them until SIGTERM (drains first) or SIGINT (does not)."""
    with errors():
        loaded = settings_of(
            model=model, blocks=blocks, max_blocks=max_blocks, device=device, dtype=dtype, threads=threads, price=price,
            account=account, password_file=password_file, owner=owner, cooperative=cooperative, network=network,
            host=host, public_host=public_host, port=port, stake=stake, kv_budget=kv_budget, metrics_port=metrics_port,
            drain_timeout=drain_timeout, data_dir=data_dir,
        )  # fmt: skip
        settings = loaded.settings
        setup_logging(settings.log_level)
        _serve(settings, as_json=as_json)


def _serve(settings: NodeSettings, *, as_json: bool) -> None:
    if settings.model is None:
        raise ConfigError("name a model to serve")
    if settings.account is None:
        raise ConfigError("--account names the keystore of the account that is paid and stakes")
    folder = data_dir_of(settings)
    lock = folder.lock()
    try:
        import torch
        import uvloop

        from corolla_core.chain.keystore import load_account
        from corolla_core.chain.network import resolve_network
        from corolla_node.engine import usable_cores
        from corolla_node.node import run_node
        from corolla_node.running import Ready
        from corolla_node.stop import Stop, supervise

        if settings.threads is not None or "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(settings.threads or usable_cores())
        chosen = resolve_network(settings.network, folder=home() / "networks")
        keystore = keystore_path(settings.account)
        signer = load_account(keystore, read_password(settings.password_file, keystore), chain_id=chosen.chain_id)
        folder.write_up({"account": str(keystore), "network": money.absolute_network(settings.network)})

        def ready(state: Ready) -> None:
            emit(state.to_json(), as_json=as_json)

        async def main() -> None:
            stop = Stop()
            stop.listen()
            with progress_bars() as report:
                node = run_node(
                    settings, signer=signer, network=chosen, data_dir=folder, stop=stop, on_ready=ready, report=report
                )
                await supervise(node, stop)

        uvloop.run(main())
    finally:
        lock.release()


@app.command()
def down(
    drain: Annotated[
        bool, typer.Option("--drain", help="Let sessions end first, as long as the node's drain timeout.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for it to end.")] = 120.0,
    data_dir: DataDirOption = None,
) -> None:
    """Stop the running node: it redeems what it is owed and leaves the swarm."""
    with errors():
        folder = data_dir_of(settings_of(data_dir=data_dir).settings)
        pid = folder.running_pid()
        if pid is None:
            raise ConfigError(f"no node is running on {folder.path}")
        os.kill(pid, signal.SIGTERM if drain else signal.SIGINT)
        end = time.monotonic() + wait
        while folder.running_pid() == pid:
            if time.monotonic() >= end:
                raise ConfigError(f"the node (pid {pid}) has not ended in {wait:g} s")
            time.sleep(0.05)


@app.command()
def status(data_dir: DataDirOption = None, as_json: Json = False) -> None:
    """How the node on this machine does. Exit status 1 when none is running."""
    with errors():
        folder = data_dir_of(settings_of(data_dir=data_dir).settings)
        pid = folder.running_pid()
        last = folder.status() or {}
        running = pid is not None and last.get("pid") == pid
        state = last.get("state", "loading") if running else "loading" if pid is not None else "stopped"
        emit({**last, "running": pid is not None, "state": state, "pid": pid}, as_json=as_json)
    if pid is None:
        raise typer.Exit(1)


@app.command()
def doctor(
    model: Annotated[str | None, typer.Argument(help="The model it is to serve.")] = None,
    network: Annotated[str | None, typer.Option(help="A network's name or file.")] = None,
    account: Annotated[Path | None, typer.Option(help="Keystore of the node: a name, or a path.")] = None,
    data_dir: DataDirOption = None,
    as_json: Json = False,
) -> None:
    """Look for what may be wrong, and say what to do about it. Exit status 1 when something is."""
    with errors():
        from corolla_node.cli.doctor import examine

        settings = settings_of(model=model, network=network, account=account, data_dir=data_dir).settings
        setup_logging("warning")
        findings = asyncio.run(examine(settings, data_dir_of(settings)))
        emit(rows(findings), as_json=as_json)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)


@config_app.command("show")
def config_show(as_json: Json = False) -> None:
    """Every setting, its value, and the layer it came from."""
    with errors():
        table = settings_of().table()
        if as_json:
            emit({row.name: {"value": _plain(row.value), "source": row.source} for row in table}, as_json=True)
        else:
            emit({row.name: f"{_plain(row.value)}  ({row.source})" for row in table}, as_json=False)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    app()
