"""Settings every test shares: asyncio, no hub access, one thread a process (two cores serve everything)."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from ganache import ganache
from hypothesis import settings

import corolla_core.chain  # noqa: F401 -- first of all that bring py_ecc with them; see there

__all__ = ["ganache"]

# A landing must not hang on today's dice: CI draws the same examples each time, people's machines draw new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

_configure = structlog.configure


def _uncached(**given: Any) -> None:
    _configure(**{**given, "cache_logger_on_first_use": False})


# A command that a test runs in its own process sets logging up, for good otherwise: others look at what is logged.
structlog.configure = _uncached


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
