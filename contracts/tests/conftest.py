from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import ONE_NECTAR, deploy


@pytest.fixture(scope="module")
def deployed(module_isolation):
    """Contracts deployed; payers 1 and 2 have deposited a thousand tokens each."""
    from brownie import accounts, project

    world = deploy(project.get_loaded_projects()[0], accounts[0])
    for payer in (1, 2):
        world.fund(payer, 1_000 * ONE_NECTAR)
    return world


@pytest.fixture
def world(deployed, fn_isolation):
    """The module's world, as every test of it finds it."""
    return deployed


@pytest.fixture
def harness(deployed):
    """The protocol's pure functions; nothing to undo after a test."""
    return deployed.harness


@pytest.fixture(scope="session")
def project():
    """The loaded Brownie project: its contracts by name."""
    from brownie import project as brownie_project

    return brownie_project.get_loaded_projects()[0]
