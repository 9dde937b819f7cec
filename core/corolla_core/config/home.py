"""The one directory Corolla writes to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """`$COROLLA_HOME`, or `~/.corolla`. Absolute; not created."""
    chosen = environ.get("COROLLA_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".corolla"


def keystore_path(name_or_path: str | Path) -> Path:
    """A keystore as it can be named from any directory: a bare name means `<home>/keys/<name>.json`."""
    text = str(name_or_path)
    if "/" in text or text.endswith(".json"):
        return Path(text).expanduser().absolute()
    return home() / "keys" / f"{text}.json"
