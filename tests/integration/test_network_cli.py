"""Founding a network by the command line, on a chain that is no devnet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ganache import free_port, running_ganache
from model_zoo import save_checkpoint
from typer.testing import CliRunner, Result

from corolla.cli.main import app
from corolla_core.chain.network import Network


@pytest.fixture
def founder(tmp_path: Path) -> dict[str, str]:
    """Settings with a home, in which there is an account `founder`."""
    home, password = tmp_path / "home", tmp_path / "password"
    password.write_text("founding\n")
    settings = {
        "COROLLA_HOME": str(home),
        "COROLLA_ACCOUNT": "founder",
        "COROLLA_PASSWORD_FILE": str(password),
        "NO_COLOR": "1",
    }
    assert CliRunner().invoke(app, ["account", "new", "founder"], env=settings).exit_code == 0
    return settings


def test_a_network_is_founded_on_a_chain_that_is_no_devnet(founder: dict[str, str], tmp_path: Path) -> None:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--json"], env=founder)

    model = save_checkpoint("llama", tmp_path / "tiny")
    (account,) = json.loads(run("account", "show", "founder").stdout)
    with running_ganache(chain_id=5) as chain:
        rich = chain.accounts[0].address
        chain.rpc("eth_sendTransaction", {"from": rich, "to": account["address"], "value": hex(10**18)})
        made = run("network", "deploy", "forest", "--rpc-url", chain.url)
        assert made.exit_code == 0, made.output
        file = Path(json.loads(made.stdout)["file"])
        assert (Network.load(file).chain_id, Network.load(file).bootstrap) == (5, ())
        again = run("network", "deploy", "forest", "--rpc-url", chain.url)
        assert again.exit_code == 2
        assert "already there" in again.stderr
        published = run("network", "publish", str(model), "--class", "fp32", "--class", "int8", "--network", "forest")
        assert published.exit_code == 0, published.output
        (listed,) = json.loads(run("models", "--network", "forest").stdout)
        assert (listed["root"], listed["classes"]) == (json.loads(published.stdout)["root"], "fp32, int8")
        peer = [sys.executable, "-m", "corolla.cli.main", "network", "bootstrap", "--network", "forest"]
        port = free_port()
        addresses = {_address([*peer, f"--listen=/ip4/127.0.0.1/tcp/{port}"], founder) for _ in range(2)}
        assert addresses == set(Network.load(file).bootstrap)  # the same peer, at the same place in the file
        (known,) = Network.load(file).bootstrap
        assert known.startswith(f"/dns4/example.org/tcp/{port}/p2p/")


def _address(command: list[str], environ: dict[str, str]) -> str:
    command = [*command, "--public-host=example.org"]
    with subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        ready = json.loads(peer.stdout.readline())
        peer.send_signal(signal.SIGTERM)
        assert peer.wait(timeout=30) == 0
    return str(ready["maddr"])
