"""A node's own folder: one node at a time may use it, and others can see who that is and how it does."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corolla_core.protocol.errors import ConfigError

_LOCK, _STATUS, _UP = "node.lock", "status.json", "up.json"


@dataclass(frozen=True, slots=True)
class DataDir:
    """`path` holds the lock (with the pid in it), the last status, the last `up`, the store and the libp2p key."""

    path: Path

    @property
    def store_path(self) -> Path:
        return self.path / "books.db"

    @property
    def rows_path(self) -> Path:
        """The rows under receipts."""
        return self.path / "rows"

    @property
    def identity_path(self) -> Path:
        return self.path / "p2p.key"

    def lock(self) -> Lock:
        """Take the folder for this process until it ends. Raises ConfigError when another node has it."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ConfigError(f"a node (pid {self.running_pid()}) is already using {self.path}") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        return Lock(descriptor)

    def running_pid(self) -> int | None:
        """The node that holds the lock now; None when there is none."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.read(descriptor, 32).decode(errors="replace").strip()
            return int(text) if text.isdecimal() else None
        finally:
            os.close(descriptor)
        return None

    def write_status(self, status: dict[str, Any]) -> None:
        self._write(_STATUS, status)

    def status(self) -> dict[str, Any] | None:
        """What the node last wrote, whether or not it still runs."""
        return self._read(_STATUS)

    def write_up(self, settings: dict[str, str]) -> None:
        """Remember which account and network this folder's node is, so that later commands need not be told."""
        self._write(_UP, settings)

    def up(self) -> dict[str, Any]:
        return self._read(_UP) or {}

    def _write(self, name: str, content: dict[str, Any]) -> None:
        temporary = self.path / f".{name}.new"
        temporary.write_text(json.dumps(content))
        temporary.replace(self.path / name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None


class Lock:
    """Held until released or the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
