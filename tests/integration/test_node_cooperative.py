"""A cooperative by command, from its creation to its end, with the node's own launch in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ganache import Ganache
from typer.testing import CliRunner

from corolla_core.chain.cooperative import CooperativeFactory
from corolla_core.chain.deploy import deploy_all
from corolla_core.chain.keystore import create_account
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ConfigError, InsufficientFunds
from corolla_core.protocol.ids import Address, PeerId, address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import ONE_NECTAR, Nectar
from corolla_node.cli.main import app
from corolla_node.pooled import ensure_pooled

PEER = PeerId("12D3KooWExample")
Act = Callable[[Chain, TransactionSender], Awaitable[Any]]


def on_chain(network: Network, signer: Signer, act: Act) -> Any:
    async def run() -> Any:
        async with await Chain.connect(network) as chain:
            return await act(chain, TransactionSender(chain, signer))

    return asyncio.run(run())


async def pooled(chain: Chain, sender: TransactionSender, cooperative: Address) -> None:
    pool = await CooperativeFactory(chain, sender).cooperative(cooperative)
    await ensure_pooled(Registry(chain, sender), pool, account=sender.address, peer_id=PEER)


def test_members_pool_a_stake_share_what_comes_in_and_part_again(ganache: Ganache, tmp_path: Path) -> None:
    deployer, hot, ann, bob = ganache.accounts[:4]
    network = asyncio.run(deploy_all(ganache.url, deployer, unbonding_delay=60))
    network.save(tmp_path / "networks")
    (tmp_path / "password").write_text("secret\n")
    for name, key in (("hot", hot), ("ann", ann), ("bob", bob)):
        create_account(tmp_path / f"{name}.json", "secret", secret=key.secret, kdf="pbkdf2", iterations=10)

    async def fund(chain: Chain, sender: TransactionSender) -> None:
        for member in (ann, bob):
            await Token(chain, sender).mint(member.address, Nectar(1000 * ONE_NECTAR))

    on_chain(network, deployer, fund)

    def run(command: str, *arguments: str, by: str, fails: bool = False) -> Any:
        flags = ["--account", str(tmp_path / f"{by}.json"), "--network", network.name, "--json"]
        if command != "status":
            flags += ["--password-file", str(tmp_path / "password")]
        result = CliRunner().invoke(
            app, ["cooperative", command, *arguments, *flags], env={"COROLLA_HOME": str(tmp_path)}
        )
        assert (result.exit_code != 0) is fails, result.output
        return result.stderr if fails else json.loads(result.stdout)

    members = ("--member", f"{ann.address}=1", "--member", f"{bob.address}=2")
    terms = ("--node", hot.address, *members, "--per-share", "50", "--notice", "30")
    where = address(run("create", *terms, by="ann")["cooperative"])
    assert run("join", where, "--yes", by="ann")["deposited"] == "50"
    assert "NotMember" in run("join", where, "--yes", by="hot", fails=True)

    async def launch(chain: Chain, sender: TransactionSender) -> None:
        await pooled(chain, sender, where)

    with pytest.raises(InsufficientFunds, match=bob.address):
        on_chain(network, hot, launch)
    with pytest.raises(ConfigError, match=hot.address):
        on_chain(network, ann, launch)
    run("join", where, "--yes", by="bob")
    run("leave", where, by="bob")
    run("join", where, "--yes", by="bob")
    for _ in range(2):  # a node that comes up again finds itself registered
        on_chain(network, hot, launch)
    seen = run("status", where, by="bob")
    assert (seen["launched"], seen["active"], seen["stake"], seen["deposited"]) == (True, True, "150", "0")

    async def pay(chain: Chain, sender: TransactionSender) -> None:
        await Token(chain, sender).transfer(where, Nectar(9 * ONE_NECTAR))

    on_chain(network, bob, pay)
    assert [m["due"] for m in run("status", where, by="ann")["members"]] == ["3", "6"]
    assert [m["withdrawn"] for m in run("withdraw", where, by="ann")["members"]] == ["3", "0"]

    assert "NoticeNotOver" in run("dissolve", where, by="ann", fails=True)
    assert run("notice", where, "--yes", by="ann")["dissolvable_at"] > 0
    ganache.advance(31)
    assert run("dissolve", where, by="bob")["unbonding"] == "150"
    with pytest.raises(InsufficientFunds):  # the pool's stake is on its way out: nobody adds the node's own money
        on_chain(network, hot, launch)
    ganache.advance(61)
    assert [m["withdrawn"] for m in run("withdraw", where, by="bob")["members"]] == ["3", "106"]
    assert [m["withdrawn"] for m in run("withdraw", where, by="ann")["members"]] == ["53", "106"]


def test_what_the_factory_did_not_make_is_no_cooperative(ganache: Ganache) -> None:
    deployer, hot = ganache.accounts[0], ganache.accounts[5]
    network = asyncio.run(deploy_all(ganache.url, deployer))

    async def launch(chain: Chain, sender: TransactionSender) -> None:
        await pooled(chain, sender, network.registry)

    with pytest.raises(ConfigError, match="no cooperative"):
        on_chain(network, hot, launch)
