"""One process at a time draws on a tranche: a lock file each, let go by the operating system when the process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from corolla_core.protocol.ids import TrancheId


class FileLeases:
    """Lock files in `folder`. Two wallets that counted on the same tranche would promise the same money twice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[TrancheId, int] = {}

    def acquire(self, tranche_id: TrancheId) -> bool:
        """Whether the tranche is now this object's; True again when it already was."""
        if tranche_id in self._held:
            return True
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._folder / f"{tranche_id.hex()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._held[tranche_id] = descriptor
        return True

    def release_all(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()
