"""The one directory Corolla writes to, as the model adapter sees it."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`$COROLLA_HOME`, or `~/.corolla`. Absolute; not created. The same rule as `corolla_core.config.home`, which an
    adapter beside it may not import."""
    chosen = os.environ.get("COROLLA_HOME")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".corolla"


def models_dir() -> Path:
    """Where converted and downloaded checkpoints are cached."""
    return home() / "models"
