"""A node whose stake belongs to another account than the one it serves with."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from ganache import Ganache
from typer.testing import CliRunner

from corolla_core.chain.deploy import deploy_all
from corolla_core.chain.keystore import create_account
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.ids import PeerId
from corolla_core.protocol.units import ONE_NECTAR, Nectar
from corolla_node.cli.main import app
from corolla_node.onchain import ensure_registered


def test_an_owner_takes_out_by_command_the_stake_behind_another_account(ganache: Ganache, tmp_path: Path) -> None:
    deployer, hot, owner = ganache.accounts[0], ganache.accounts[1], ganache.accounts[2]

    async def registered() -> Network:
        network = await deploy_all(ganache.url, deployer, unbonding_delay=60)
        async with await Chain.connect(network) as chain:
            token = Token(chain, TransactionSender(chain, deployer))
            for funded in (hot, owner):
                await token.mint(funded.address, Nectar(1000 * ONE_NECTAR))
            sender = TransactionSender(chain, hot)
            await ensure_registered(
                Registry(chain, sender),
                Token(chain, sender),
                account=hot.address,
                peer_id=PeerId("12D3KooWExample"),
                owner=owner.address,
                stake=None,
            )
        return network

    network = asyncio.run(registered())
    network.save(tmp_path / "networks")
    password = tmp_path / "password"
    password.write_text("secret\n")
    create_account(tmp_path / "owner.json", "secret", secret=owner.secret, kdf="pbkdf2", iterations=10)
    create_account(tmp_path / "hot.json", "secret", secret=hot.secret, kdf="pbkdf2", iterations=10)

    def run(*command: str, by: str = "owner", fails: bool = False) -> dict[str, Any]:
        flags = ["--account", str(tmp_path / f"{by}.json"), "--password-file", str(password), "--network", network.name]
        result = CliRunner().invoke(app, [*command, *flags, "--json"], env={"COROLLA_HOME": str(tmp_path)})
        assert (result.exit_code != 0) is fails, result.output
        shown: dict[str, Any] = {"error": result.stderr} if fails else json.loads(result.stdout)
        return shown

    at_node = ("--node", hot.address)
    more = run("stake", "5", *at_node, "--yes")
    assert (more["account"], more["node"], more["owner"]) == (owner.address, hot.address, owner.address)
    assert (more["stake"], more["wallet"]) == ("105", "995")
    assert "NotOwner" in run("unstake", "all", "--yes", by="hot", fails=True)["error"]
    assert run("unstake", "all", *at_node, "--yes")["unbonding"] == "105"
    ganache.advance(61)
    assert run("unstake", "--finish", *at_node)["wallet"] == "1100"
