"""One devnet of real processes for all end-to-end tests: three nodes that share SmolLM2, and a standby for each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("COROLLA_HOME", str(Path(__file__).resolve().parents[2] / ".corolla"))

import torch
from hatchery import Hatchery
from transformers.utils.logging import disable_progress_bar

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.reference import Reference
from corolla.devnet.split import split_evenly
from corolla_core.chain.deploy import Terms
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.rpc import Chain
from corolla_core.model.smollm import prepare_smollm

ORPHAN_GRACE = 3.0
#: Short delays, so that a test can see their end by moving the chain's clock a little.
TERMS = Terms(unbonding_delay=60, audit_window=30, grace=3600)
SETTINGS = {"orphan_grace": ORPHAN_GRACE, "redeem_interval": 2.0, "payment_grace": 1.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))  # a devnet's start is in it


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def hatchery() -> Iterator[None]:
    """Processes of the devnets start from one that has their imports done."""
    with Hatchery() as hatchery, pytest.MonkeyPatch.context() as patch:
        patch.setattr("corolla.devnet.process.Popen", hatchery.popen)
        yield


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    torch.set_num_threads(1)
    disable_progress_bar()
    return prepare_smollm()


@pytest.fixture(scope="session")
def reference(checkpoint: Path) -> Reference:
    """Plain transformers on the whole model."""
    return Reference(checkpoint)


@pytest.fixture(scope="session")
async def devnet(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    thirds = split_evenly(30, 3)
    plan = DevnetPlan(model=str(checkpoint), spans=thirds, standbys=thirds, terms=TERMS, settings=SETTINGS)
    async with Devnet(plan, home=tmp_path_factory.mktemp("home")) as devnet:
        yield devnet


@pytest.fixture(scope="session")
async def chain(devnet: Devnet) -> AsyncIterator[Chain]:
    async with await Chain.connect(devnet.network) as chain:
        yield chain


@pytest.fixture
def escrow(chain: Chain) -> Escrow:
    """The escrow, to look at."""
    return Escrow(chain)
