"""Keys, budgets, privacy and room at a real gateway over real nodes, as docs/gateway-operations.md says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from marketplace import buyer
from openai import APIStatusError, AsyncOpenAI, AuthenticationError, InternalServerError, RateLimitError
from test_gateway import gateway

from corolla.devnet.devnet import DEFAULT_PRICE, Devnet
from corolla.devnet.node import installed
from corolla_core.protocol.units import nectar_from_text, nectar_to_text

pytestmark = pytest.mark.anyio
POLICY = """
[[backend]]
name = "swarm"
kind = "swarm"

[[backend]]
name = "elsewhere"
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
models = { elsewhere = "theirs" }
price = { prompt = "0.5", completion = "1.5" }
"""
TOKENS = 4
EACH = 30 * DEFAULT_PRICE


async def test_a_key_spends_its_budget_and_no_more_and_a_private_prompt_goes_nowhere_else(
    devnet: Devnet, tmp_path: Path
) -> None:
    books = str(tmp_path / "keys.db")

    def keys(*arguments: str) -> Any:
        command = [installed("corolla"), "gateway-keys", *arguments, f"--books={books}", "--json"]
        done = subprocess.run(command, capture_output=True, check=True, env=os.environ)
        return json.loads(done.stdout)

    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    alice = keys("add", "alice", f"--budget={nectar_to_text(60 * EACH)}")["key"]
    bob = keys("add", "bob", "--private")["key"]
    async with buyer(devnet) as customer:
        pass
    options = ("--keys", f"--books={books}", f"--policy={policy}", "--streams=2", "--waiting=0")
    async with (
        gateway(devnet, customer, *options) as url,
        AsyncOpenAI(api_key=alice, base_url=f"{url}/v1", max_retries=0) as client,
    ):
        model, elsewhere = [each.id async for each in await client.models.list()]
        assert elsewhere == "elsewhere"

        async def ask(**changes: Any) -> Any:
            asked = {"model": model, "prompt": "Once upon a time", "max_tokens": TOKENS, "temperature": 0}
            return await client.completions.with_raw_response.create(**(asked | changes))

        first = await ask()
        assert first.headers["x-corolla-backend"] == "swarm"
        cost = first.parse().usage.model_extra["cost_base_units"]
        (listed, _bob) = keys("list")
        assert nectar_from_text(listed["spent"]) == cost > 0
        assert listed["reserved"] == "0"

        with pytest.raises(InternalServerError) as private:
            await ask(extra_headers={"X-Corolla-Privacy": "private"})
        assert private.value.code == "PrivacyUnmet"
        with pytest.raises(InternalServerError) as down:
            await ask(model="elsewhere")
        assert down.value.code == "PeerUnreachable"

        ends = await asyncio.gather(*(ask(prompt=f"Number {n}") for n in range(4)), return_exceptions=True)
        assert sum(isinstance(end, RateLimitError) for end in ends) == 2
        shed = next(end for end in ends if isinstance(end, RateLimitError))
        assert int(shed.response.headers["retry-after"]) >= 1

        spent = nectar_from_text(keys("list")[0]["spent"])
        assert cost < spent <= 60 * EACH
        with pytest.raises(APIStatusError) as broke:
            await ask(max_tokens=60)
        assert broke.value.status_code == 402
        assert nectar_from_text(keys("list")[0]["spent"]) == spent

        keys("revoke", "alice")
        with pytest.raises(AuthenticationError):
            await ask()
        with pytest.raises(InternalServerError):
            await client.with_options(api_key=bob).completions.create(model=model, prompt="a secret", max_tokens=TOKENS)
