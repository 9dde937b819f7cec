"""The devnet's chain: Ganache on a database of its own, so that killing and restarting it keeps the chain."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from corolla.devnet.process import Child
from corolla_core.chain.devnet_keys import DEVNET_MNEMONIC
from corolla_core.protocol.errors import ConfigError, ProcessFailed

CHAIN_ID = 1337
RULES = ("--chain.hardfork=shanghai", "--chain.asyncRequestProcessing=false")
"""One request at a time: Ganache 7.9.2 estimates gas on whatever state is the newest at each try, and goes on for ever
when a block mined meanwhile makes the call fail."""
_CLI = Path("node_modules/ganache/dist/node/cli.js")


class Ganache:
    """A chain process. `kill` and `start` again is an RPC outage: same port, same database, same chain."""

    def __init__(self, *, folder: Path, port: int | None = None, detached: bool = False) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._detached = detached
        self.child: Child | None = None

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.returncode is None

    async def start(self, *, within: float = 60.0) -> None:
        """Run it until it answers. Raises ConfigError where Node.js or Ganache is missing, ProcessFailed else."""
        database = self._folder / "chain"
        database.mkdir(parents=True, exist_ok=True)
        command = [
            nodejs(),
            str(ganache_cli()),
            "--server.host=127.0.0.1",
            f"--server.port={self.port}",
            f"--wallet.mnemonic={DEVNET_MNEMONIC}",
            f"--chain.chainId={CHAIN_ID}",
            f"--chain.networkId={CHAIN_ID}",
            *RULES,
            f"--database.dbPath={database}",
            "--logging.quiet=true",
        ]
        child = Child.start("ganache", command, folder=self._folder, env=os.environ, detached=self._detached)
        self.child = child
        deadline = time.monotonic() + within
        while True:
            try:
                await self.rpc("eth_chainId")
                return
            except httpx.TransportError:
                if child.returncode is not None or time.monotonic() > deadline:
                    raise ProcessFailed(f"ganache does not answer; see {child.log}", name="ganache") from None
                await asyncio.sleep(0.1)

    async def rpc(self, method: str, *params: object) -> Any:
        """A raw JSON-RPC call, for the clock cheats (`evm_increaseTime`) no binding offers."""
        async with httpx.AsyncClient(timeout=10.0, trust_env=False) as http:
            answer = (
                await http.post(self.url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
            ).json()
        if "error" in answer:
            raise ProcessFailed(f"{method}: {answer['error'].get('message')}", name="ganache")
        return answer["result"]

    async def advance(self, seconds: int) -> None:
        """Move the chain's clock on, and mine a block that shows it."""
        await self.rpc("evm_increaseTime", seconds)
        await self.rpc("evm_mine")

    async def kill(self) -> None:
        """Take the RPC away at once."""
        if self.child is not None:
            self.child.kill()
            await self.child.wait(within=10)

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(grace=5.0)


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def nodejs(environ: Mapping[str, str] = os.environ) -> str:
    """The real Node.js: a `node` that is a Python script is our own command. Raises ConfigError."""
    for folder in environ.get("PATH", "").split(os.pathsep):
        found = shutil.which("node", path=folder)
        if found:
            with Path(found).open("rb") as file:
                if b"python" not in file.read(128).split(b"\n", 1)[0]:
                    return found
    raise ConfigError("Node.js is not on PATH; the devnet's chain needs it")


def ganache_cli(environ: Mapping[str, str] = os.environ) -> Path:
    """Ganache's entry point: `$COROLLA_GANACHE`, or what `npm ci` put into `contracts/` of the checkout we run from
    or stand in. Raises ConfigError."""
    chosen = environ.get("COROLLA_GANACHE")
    if chosen:
        candidates = [Path(chosen)]
    else:
        places = [*Path(__file__).resolve().parents, Path.cwd(), *Path.cwd().parents]
        candidates = [place / "contracts" / _CLI for place in places]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigError("Ganache is not installed: run `make setup` in a checkout, or set COROLLA_GANACHE")
