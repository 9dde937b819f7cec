from __future__ import annotations

import sys
from pathlib import Path

import pytest
from web3.middleware import Web3Middleware

sys.path.insert(0, str(Path(__file__).parent))

from jury_world import CLIENT, JURORS, NODE, OWNER, SEAT_STAKE, deploy_jury
from world import ONE_NECTAR, deploy

#: Two workers share the files (scripts/test.sh). The longest go first, or one is left with them at the end.
LONGEST = (
    "test_disputes.py",
    "test_faults_invariants.py",
    "test_reputation.py",
    "test_invariants.py",
    "test_faults_openings.py",
    "test_faults.py",
    "test_faults_refunds.py",
    "test_gas.py",
    "test_stake_invariants.py",
    "test_properties.py",
    "test_jury_invariants.py",
)


def pytest_collection_modifyitems(items):
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def pytest_configure(config):
    """What Brownie gets wrong about Anvil's clock."""
    from brownie.network.rpc import anvil
    from brownie.network.state import Chain

    def mine(timestamp=None):
        """Brownie passes the timestamp on as a bare number, which JSON-RPC does not allow."""
        anvil._request("evm_mine", [] if timestamp is None else [timestamp])

    def revert(chain, snapshot_id):
        """Reverting, Anvil's clock goes back to the block's time, where Brownie's runs on from the snapshot's and would
        be ahead: without a time kept for the snapshot, Brownie starts from the block's too."""
        chain._snapshot_time_offsets.pop(snapshot_id, None)
        return reverted(chain, snapshot_id)

    reverted = Chain._revert
    anvil.mine, Chain._revert = mine, revert


class MinedWhenSent(Web3Middleware):
    """A transaction is mined before sending it returns.

    Anvil otherwise answers while it mines, and there is a moment when Brownie finds the transaction neither waiting nor
    mined, and takes it for dropped.
    """

    def wrap_make_request(self, make_request):
        def request(method, params):
            if method != "eth_sendTransaction":
                return make_request(method, params)
            response = make_request("eth_sendTransactionSync", params)
            if "result" in response:
                response["result"] = response["result"]["transactionHash"]
            return response

        return request


@pytest.fixture(scope="session", autouse=True)
def quick_requests():
    """Anvil answers in less time than web3 takes to ask: a second request for the chain's id before each one, to
    check it, and a search of the environment for proxies on the way to 127.0.0.1 come to 40 % of a test."""
    from brownie import web3

    web3.middleware_onion.inject(MinedWhenSent, layer=0)
    web3.middleware_onion.remove("validation")
    session = web3.provider._request_session_manager.cache_and_return_session(web3.provider.endpoint_uri)
    session.trust_env = False


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


@pytest.fixture(scope="module")
def deployed_jury(module_isolation):
    """A jury over a staked node; five jurors with stakes of 10, 11, … 14 seats; the client has deposited."""
    from brownie import accounts, project

    jury = deploy_jury(project.get_loaded_projects()[0], accounts[0])
    jury.stake(NODE, owner=OWNER)
    jury.fund(CLIENT, 1_000 * ONE_NECTAR)
    for index, juror in enumerate(JURORS):
        jury.join(juror, (10 + index) * SEAT_STAKE)
    return jury


@pytest.fixture
def jury(deployed_jury, fn_isolation):
    """The module's jury, as every test of it finds it."""
    return deployed_jury


@pytest.fixture
def harness(deployed):
    """The protocol's pure functions; nothing to undo after a test."""
    return deployed.harness


@pytest.fixture(scope="session")
def project():
    """The loaded Brownie project: its contracts by name."""
    from brownie import project as brownie_project

    return brownie_project.get_loaded_projects()[0]
