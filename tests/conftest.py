"""Settings every test shares: asyncio, no hub access, one thread a process (two cores serve everything)."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from ganache import ganache

import corolla_core.chain  # noqa: F401 -- first of all that bring py_ecc with them; see there

__all__ = ["ganache"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
