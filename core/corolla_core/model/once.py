"""A directory that is made once, whole or not at all, however many processes ask for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from corolla_core.protocol.errors import ModelError


def made_once(
    dest: Path, *, is_ready: Callable[[Path], bool], make: Callable[[Path], Path], lock_seconds: float = 1800
) -> Path:
    """`dest`, made on the first call by `make(work)`, which leaves the result in a directory under `work` (on the same
    disk) and returns it. A broken `dest` is made anew. Raises ModelError when it cannot be made (a full disk, say) or
    another process takes longer than `lock_seconds` over it; nothing half-made is left behind.
    """
    if is_ready(dest):
        return dest
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(dest.parent / f".{dest.name}.lock", timeout=lock_seconds):
            if is_ready(dest):
                return dest
            prefix = f".making-{dest.name}-"
            for stale in dest.parent.glob(f"{prefix}*"):  # left by a process that was killed; we hold the lock now
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=prefix, dir=dest.parent, ignore_cleanup_errors=True) as work:
                made = make(Path(work))
                shutil.rmtree(dest, ignore_errors=True)
                os.replace(made, dest)
    except Timeout:
        raise ModelError(f"another process has been making {dest} for {lock_seconds} s") from None
    except OSError as error:
        raise ModelError(f"cannot make {dest}: {error}") from None
    return dest
