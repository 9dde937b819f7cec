"""One validator of the devnet: a `validator run` process with books of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from corolla.devnet.node import installed
from corolla.devnet.process import Child
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.signature import Signer

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


class DevnetValidator:
    """It audits sessions of every node, with `probability` (a fraction as text)."""

    def __init__(
        self,
        name: str,
        *,
        signer: Signer,
        keystore: Path,
        password_file: Path,
        model: str,
        network: Path,
        folder: Path,
        probability: str,
        detached: bool,
    ) -> None:
        self.name = name
        self.home = folder / "homes" / name
        self.child: Child | None = None
        self.signer = signer
        self.keystore = keystore
        self._password_file = password_file
        self._model = model
        self._network = network
        self._folder = folder
        self._probability = probability
        self._detached = detached

    @property
    def account(self) -> Address:
        return self.signer.address

    @property
    def environ(self) -> dict[str, str]:
        """What its process inherits; any other `validator` command needs the same."""
        shared = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        return {**shared, **os.environ, "COROLLA_HOME": str(self.home)}

    def launch(self) -> None:
        """Start the process; `wait_ready` waits until it audits."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [
            installed("validator"),
            "run",
            f"--model={self._model}",
            f"--network={self._network}",
            f"--probability={self._probability}",
            f"--account={self.keystore}",
            f"--password-file={self._password_file}",
            "--json",
        ]
        self.child = Child.start(self.name, command, folder=self._folder, env=self.environ, detached=self._detached)

    async def wait_ready(self) -> None:
        """Until it audits. Raises ProcessFailed, with the end of its log."""
        await self._running().wait_event("event", "ready", within=_START_SECONDS)

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What it has told of one kind so far, such as `audit`, `accused`, `vote` or `verdict`."""
        return [event for event in self._running().events() if event.get("event") == kind]

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.stop(grace=_STOP_SECONDS)

    def _running(self) -> Child:
        if self.child is None:
            raise ConfigError(f"{self.name} was never started")
        return self.child
