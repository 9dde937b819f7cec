"""`corolla devnet deploy`: done once it stays done, and on a chain that was started anew it is done anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from client_world import make_checkpoint
from ganache import Ganache as Chain0
from ganache import ganache  # noqa: F401 -- a fixture

from corolla.devnet.deployment import Deployment, deploy
from corolla_core.chain.keystore import account_address
from corolla_core.chain.models import Models
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.token import Token

pytestmark = pytest.mark.anyio


async def test_a_devnet_is_deployed_once_for_each_chain(tmp_path: Path, ganache: Chain0) -> None:  # noqa: F811
    checkpoint = make_checkpoint(tmp_path / "tiny")
    plan = Deployment(ganache.url, str(checkpoint.folder), ("client", "node-0"), "/dns4/bootstrap/tcp/31400")
    empty = ganache.snapshot()
    network = await deploy(plan, home=tmp_path)
    assert Network.load(tmp_path / "networks/devnet.json") == network
    (bootstrap,) = network.bootstrap
    assert bootstrap.startswith("/dns4/bootstrap/tcp/31400/p2p/Qm")
    keys = tmp_path / "keys"
    assert (keys / "password").stat().st_mode & 0o777 == 0o600

    async def funds() -> list[int]:
        async with await Chain.connect(network) as chain:
            assert (await Models(chain).latest("tiny")).manifest_root
            return [await Token(chain).balance_of(account_address(keys / f"{name}.json")) for name in plan.accounts]

    given = await funds()
    assert min(given) > 0
    height = ganache.rpc("eth_blockNumber")
    assert await deploy(plan, home=tmp_path) == network
    assert ganache.rpc("eth_blockNumber") == height  # nothing was sent

    known = [(keys / f"{name}.json").read_bytes() for name in plan.accounts]
    ganache.revert(empty)  # as a chain does whose volume is gone
    again = await deploy(plan, home=tmp_path)
    assert again.bootstrap == network.bootstrap
    assert [(keys / f"{name}.json").read_bytes() for name in plan.accounts] == known
    assert await funds() == given
