"""The one directory Corolla writes to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """`$COROLLA_HOME`, or `~/.corolla`. Absolute; not created."""
    chosen = environ.get("COROLLA_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".corolla"
