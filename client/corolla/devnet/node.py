"""One node of the devnet: its keys, its home, and the `corolla-node up` process that serves its blocks."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from corolla.devnet.process import Child
from corolla.devnet.state import NodeRecord
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span

_START_SECONDS = 120.0
_DRAIN_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What `corolla-node up` is told: everything but who it is."""

    model: str
    network: Path
    password_file: Path
    price: int
    environ: Mapping[str, str]
    program: tuple[str, ...] | None = None
    """What runs instead of `corolla-node`."""


class DevnetNode:
    """A node that can be killed and started again under the same key, on the same store."""

    def __init__(
        self, name: str, *, span: Span, signer: Signer, keystore: Path, folder: Path, plan: NodePlan, detached: bool
    ) -> None:
        self.name = name
        self.span = span
        self.signer = signer
        self.keystore = keystore
        self.home = folder / "homes" / name
        self.ready: dict[str, Any] = {}
        self.child: Child | None = None
        self._folder = folder
        self._plan = plan
        self._detached = detached

    @property
    def account(self) -> Address:
        return self.signer.address

    @property
    def environ(self) -> dict[str, str]:
        """What its process inherits; any other `corolla-node` command needs the same."""
        return {**self._plan.environ, "COROLLA_HOME": str(self.home)}

    def launch(self) -> None:
        """Start the process; `wait_ready` waits until it serves."""
        self.home.mkdir(parents=True, exist_ok=True)
        plan = self._plan
        command = [
            *(plan.program or (installed("corolla-node"),)),
            "up",
            plan.model,
            f"--blocks={self.span}",
            f"--network={plan.network}",
            f"--account={self.keystore}",
            f"--password-file={plan.password_file}",
            f"--price={plan.price}",
            "--json",
        ]
        self.child = Child.start(self.name, command, folder=self._folder, env=self.environ, detached=self._detached)

    async def wait_ready(self) -> None:
        """Until it serves. Raises ProcessFailed, with the end of its log."""
        self.ready = await self._running().wait_event("event", "ready", within=_START_SECONDS)

    async def start(self, **settings: object) -> None:
        """`launch`, and wait until it serves; `settings` become `COROLLA_NODE_*` of this run and later ones."""
        self._plan = replace(self._plan, environ=node_environ(settings, self._plan.environ))
        self.launch()
        await self.wait_ready()

    async def kill(self) -> None:
        """`kill -9`: no drain, no goodbye."""
        child = self._running()
        child.kill()
        await child.wait(within=10)

    async def stop(self) -> None:
        """SIGTERM, drain, redeem; killed if that takes too long."""
        if self.child is not None:
            await self.child.stop(grace=_DRAIN_SECONDS)

    def record(self) -> NodeRecord:
        return NodeRecord(self.name, self.account, str(self.keystore), str(self.span), str(self.home))

    def _running(self) -> Child:
        if self.child is None:
            raise ConfigError(f"{self.name} was never started")
        return self.child


def node_environ(settings: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a node inherits: our environment, one compute thread, and `COROLLA_NODE_*` for each setting."""
    given = {f"COROLLA_NODE_{name.upper()}": str(value) for name, value in settings.items()}
    return {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **environ, **given}


def installed(command: str) -> str:
    """One of our commands: beside our interpreter, or on PATH. Raises ConfigError."""
    beside = Path(sys.executable).with_name(command)
    found = str(beside) if beside.is_file() else shutil.which(command)
    if found is None:
        raise ConfigError(f"{command} is not installed")
    return found
