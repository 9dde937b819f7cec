"""A private swarm by command, and that the chain's word is what its members go by."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fake_operators import Clock
from ganache import Ganache
from typer.testing import CliRunner

from corolla.cli.main import app
from corolla_core.chain.deploy import deploy_all
from corolla_core.chain.keystore import create_account
from corolla_core.chain.network import Network
from corolla_core.chain.operators import Operators
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address
from corolla_core.swarm.membership import FRESH_SECONDS, Membership


def test_a_consortium_makes_a_swarm_attests_lists_and_revokes(ganache: Ganache, tmp_path: Path) -> None:
    consortium, node, stranger = ganache.accounts[:3]
    public = asyncio.run(deploy_all(ganache.url, consortium))
    public.save(tmp_path / "networks")
    (tmp_path / "password").write_text("secret\n")
    for name, key in (("consortium", consortium), ("stranger", stranger)):
        create_account(tmp_path / f"{name}.json", "secret", secret=key.secret, kdf="pbkdf2", iterations=10)
    document = tmp_path / "contract.pdf"
    document.write_bytes(b"who they are")

    def run(*command: str, by: str | None = "consortium", fails: bool = False) -> Any:
        flags = ["--account", str(tmp_path / f"{by}.json"), "--password-file", str(tmp_path / "password")] if by else []
        result = CliRunner().invoke(
            app, ["attest", *command, *flags, "--json"], env={"COROLLA_HOME": str(tmp_path), "NO_COLOR": "1"}
        )
        assert (result.exit_code != 0) is fails, result.output
        return result.stderr if fails else json.loads(result.stdout)

    assert "is no private swarm" in run("list", "--network", public.name, by=None, fails=True)
    assert "a name of its own" in run("create", public.name, "--network", public.name, fails=True)
    peer = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWExample"
    made = run("create", "clinics", "--bootstrap", peer, "--network", public.name)
    private = Network.load(Path(made["file"]))
    assert (private.name, private.bootstrap, private.operators) == ("clinics", (peer,), made["operators"])
    assert (private.registry, private.is_private, public.is_private) == (public.registry, True, False)

    here = ("--network", "clinics")
    (row,) = run("add", node.address, "--document", str(document), "--days", "30", *here)
    assert (row["account"], row["metadata"]) == (node.address, "0x" + sha256(b"who they are").hexdigest())
    assert row["attested"]
    refused = run("add", stranger.address, "--document", str(document), *here, by="stranger", fails=True)
    assert "OwnableUnauthorizedAccount" in refused
    assert "NotAttested" in run("revoke", stranger.address, *here, fails=True)

    clock = Clock()

    async def members() -> set[Address]:
        async with await Chain.connect(private) as chain:
            membership = Membership(Operators(chain), clock=clock)
            return await membership.among([node.address, stranger.address])

    assert asyncio.run(members()) == {node.address}
    ganache.advance(31 * 86_400)
    assert asyncio.run(members()) == set()
    assert [row["attested"] for row in run("list", *here, by=None)] == [False]

    async def revoked_in_between() -> None:
        async with await Chain.connect(private) as chain:
            membership = Membership(Operators(chain), clock=clock)
            await asyncio.to_thread(run, "add", node.address, "--document", str(document), *here)
            assert await membership.among([node.address]) == {node.address}
            assert await asyncio.to_thread(run, "revoke", node.address, *here) == []
            clock.time += FRESH_SECONDS
            assert await membership.among([node.address]) == set()

    asyncio.run(revoked_in_between())


def test_what_names_no_operators_is_open_to_all(ganache: Ganache) -> None:
    network = asyncio.run(deploy_all(ganache.url, ganache.accounts[0]))

    async def read() -> None:
        async with await Chain.connect(network) as chain:
            Operators(chain)

    with pytest.raises(ConfigError, match="private"):
        asyncio.run(read())
