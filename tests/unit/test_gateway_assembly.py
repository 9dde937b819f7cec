"""A gateway put together as its settings say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from corolla.config import ClientSettings
from corolla.gateway.assembly import assembled
from corolla_core.protocol.errors import ConfigError

POLICY = """
[[backend]]
name = "hospital"
kind = "private"
network = "hospital"
model = "theirs"
account = "doctor"
password_file = "secret"
[[backend]]
name = "swarm"
kind = "swarm"
[[backend]]
name = "elsewhere"
kind = "openai"
base_url = "https://there.test/v1"
models = { ours = "theirs" }
price = { prompt = "0", completion = "0" }
"""


class Connections:
    """Clients that are asked for nothing; what they were to be connected with is kept."""

    def __init__(self, *, private: str = "hospital") -> None:
        self.private = private
        self.given: list[ClientSettings] = []
        self.open = 0

    @asynccontextmanager
    async def connect(self, settings: ClientSettings) -> AsyncIterator[Any]:
        self.given.append(settings)
        self.open += 1
        yield SimpleNamespace(
            account=f"0x{len(self.given)}",
            model=SimpleNamespace(name=settings.model),
            network=SimpleNamespace(name=settings.network, is_private=settings.network == self.private),
        )
        self.open -= 1


def test_a_policy_connects_to_each_swarm_with_its_own_account_and_lets_go_at_the_end(tmp_path: Path) -> None:
    path, connections = tmp_path / "policy.toml", Connections()
    path.write_text(POLICY)
    settings = ClientSettings(
        network="main", model="ours", account="me", store="mine.db", gateway_policy=path, gateway_streams=40
    )

    async def main() -> None:
        async with assembled(settings, connections.connect) as made:
            assert made.models == ("theirs", "ours")
            assert made.accounts == ("0x1", "0x2")
            assert connections.open == 2
        assert connections.open == 0

    asyncio.run(main())
    hospital, swarm = connections.given
    assert (hospital.network, hospital.model, hospital.account) == ("hospital", "theirs", "doctor")
    assert (hospital.password_file, hospital.store) == (Path("secret"), None), "its books are not the other network's"
    assert (swarm.network, swarm.model, swarm.account, swarm.store) == ("main", "ours", "me", "mine.db")
    assert {hospital.tranche_sessions, swarm.tranche_sessions} == {40}


def test_a_network_in_which_anybody_may_serve_is_not_taken_for_a_private_one(tmp_path: Path) -> None:
    path, connections = tmp_path / "policy.toml", Connections(private="another")
    path.write_text(POLICY)

    async def main() -> None:
        async with assembled(ClientSettings(model="ours", gateway_policy=path), connections.connect):
            raise AssertionError("it was opened")

    with pytest.raises(ConfigError, match="not private"):
        asyncio.run(main())


def test_without_a_policy_it_is_the_swarm_and_a_private_prompt_has_nowhere_to_go() -> None:
    connections = Connections()

    async def main() -> httpx.Response:
        async with assembled(ClientSettings(model="ours"), connections.connect) as made:
            transport = httpx.ASGITransport(app=made.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
                return await http.post(
                    "/v1/completions",
                    json={"model": "ours", "prompt": "a secret"},
                    headers={"X-Corolla-Privacy": "private"},
                )

    refused = asyncio.run(main())
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "PrivacyUnmet"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "gateway.example"])
def test_it_is_not_opened_to_others_without_keys(host: str) -> None:
    async def main() -> None:
        async with assembled(ClientSettings(model="ours", gateway_host=host), Connections().connect):
            raise AssertionError("it was opened")

    with pytest.raises(ConfigError, match="--keys"):
        asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_this_machine_it_needs_no_keys(host: str) -> None:
    async def main() -> None:
        async with assembled(ClientSettings(model="ours", gateway_host=host), Connections().connect) as made:
            assert made.models == ("ours",)

    asyncio.run(main())
