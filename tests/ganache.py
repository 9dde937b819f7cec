"""A Ganache chain for tests: own process, random port, well-known accounts, dead with the test run."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from corolla.devnet.ganache import RULES
from corolla_core.protocol.signature import Signer

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "contracts/node_modules/ganache/dist/node/cli.js"
CHAIN_ID = 1337
MNEMONIC = "test test test test test test test test test test test junk"
ACCOUNTS = 20
_PR_SET_PDEATHSIG = 1


@cache
def accounts() -> tuple[Signer, ...]:
    """The accounts Ganache funds with 1000 ether each."""
    from eth_account import Account  # slow to import, and most tests need no chain

    Account.enable_unaudited_hdwallet_features()
    paths = (f"m/44'/60'/0'/0/{i}" for i in range(ACCOUNTS))
    return tuple(Signer(bytes(Account.from_mnemonic(MNEMONIC, account_path=path).key)) for path in paths)


class Ganache:
    """A running chain. `rpc` is a plain blocking JSON-RPC call: for evm_* cheats, and to look behind our own code."""

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.process = process

    @property
    def accounts(self) -> tuple[Signer, ...]:
        return accounts()

    def rpc(self, method: str, *params: Any, timeout: float = 20.0) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            reply = json.load(answer)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    def mine(self, blocks: int = 1) -> None:
        for _ in range(blocks):
            self.rpc("evm_mine")

    def advance(self, seconds: int) -> None:
        """Move the chain's clock on and mine, as if that time had passed."""
        self.rpc("evm_increaseTime", seconds)
        self.rpc("evm_mine")

    def snapshot(self) -> str:
        return str(self.rpc("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        assert self.rpc("evm_revert", snapshot) is True

    def pause(self) -> None:
        """Stop answering (as a hung RPC does) until `resume`."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_ganache(
    *, port: int | None = None, block_time: int = 0, database: Path | None = None, chain_id: int = CHAIN_ID
) -> Iterator[Ganache]:
    """Instant mining when `block_time` is 0, else a block every that many seconds."""
    port = port or free_port()
    command = [
        node_binary(),
        str(CLI),
        "--server.host=127.0.0.1",
        f"--server.port={port}",
        f"--wallet.mnemonic={MNEMONIC}",
        f"--wallet.totalAccounts={ACCOUNTS}",
        f"--chain.chainId={chain_id}",
        f"--chain.networkId={chain_id}",
        *RULES,
        f"--miner.blockTime={block_time}",
        "--logging.quiet=true",
    ]
    if database is not None:
        command.append(f"--database.dbPath={database}")
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,
    )
    ganache = Ganache(f"http://127.0.0.1:{port}", process)
    try:
        _wait_ready(ganache, chain_id)
        yield ganache
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ganache() -> Iterator[Ganache]:
    """One instantly mining chain a test module."""
    if not CLI.exists():
        pytest.fail(f"{CLI} is missing: run `npm ci` in contracts/")
    with running_ganache() as chain:
        yield chain


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def node_binary() -> str:
    """The real Node.js: a `node` beside a Python interpreter is our own command."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = shutil.which("node", path=folder)
        if found and b"python" not in Path(found).read_bytes()[:64]:  # a console script starts with #!…/python
            return found
    raise RuntimeError("Node.js is not on PATH")


def _wait_ready(ganache: Ganache, chain_id: int, *, deadline: float = 60.0) -> None:
    end = time.monotonic() + deadline
    while True:
        try:
            assert int(ganache.rpc("eth_chainId", timeout=2.0), 16) == chain_id
            return
        except (urllib.error.URLError, OSError):
            if ganache.process.poll() is not None:
                raise RuntimeError(f"ganache exited with {ganache.process.returncode}") from None
            if time.monotonic() > end:
                raise RuntimeError("ganache did not answer in time") from None
            time.sleep(0.1)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
