"""`corolla gateway` as people run it: a process of its own over real nodes, asked by the unmodified openai package."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from marketplace import Buyer, buyer, serving
from openai import AsyncOpenAI

from corolla.devnet.devnet import DEFAULT_PRICE, Devnet
from corolla.devnet.node import installed
from corolla.devnet.process import Child
from corolla.devnet.reference import Reference

pytestmark = pytest.mark.anyio
TOKENS = 24
KILL_AFTER = 8
ASKED: list[Any] = [{"role": "user", "content": "Why do flowers have petals? Answer in three sentences."}]


@asynccontextmanager
async def gateway(devnet: Devnet, customer: Buyer, *options: str) -> AsyncIterator[str]:
    """The URL of a gateway that pays from the customer's deposit and keeps the customer's books."""
    command = [
        installed("corolla"),
        "gateway",
        f"--network={devnet.network_file}",
        f"--model={devnet.plan.model}",
        f"--account={customer.account.keystore}",
        f"--password-file={devnet.password_file}",
        "--port=0",
        "--json",
        *options,
    ]
    home = str(devnet.folder / customer.account.keystore.stem)
    environ = {**os.environ, "COROLLA_STORE": str(customer.books), "COROLLA_SPECULATE": "off", "COROLLA_HOME": home}
    child = Child.start("gateway", command, folder=devnet.folder, env=environ)
    try:
        yield (await child.wait_event("gateway", within=60))["gateway"]
        child.terminate()
        assert await child.wait(within=20) == 0
    finally:
        await child.stop(grace=0.1)


async def test_the_openai_package_gets_plain_transformers_text_at_the_signed_price_whatever_dies(
    devnet: Devnet, reference: Reference
) -> None:
    prompt = reference.chat_ids(ASKED)
    expected = reference.text(reference.generate(prompt, TOKENS))
    async with buyer(devnet) as customer:
        pass  # it has a deposit now, and leaves the rest to the gateway
    async with gateway(devnet, customer) as url, AsyncOpenAI(api_key="none", base_url=f"{url}/v1") as client:
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/readyz")).json() == {"status": "ready"}
        (model,) = [each.id async for each in await client.models.list()]
        asked: dict[str, Any] = {"model": model, "messages": ASKED, "max_tokens": TOKENS, "temperature": 0}

        whole = await client.chat.completions.create(**asked)
        assert whole.choices[0].message.content == expected
        assert whole.usage is not None
        cost = (whole.usage.model_extra or {})["cost_base_units"]
        assert cost == (len(prompt) + TOKENS - 1) * 30 * DEFAULT_PRICE
        assert sum((await customer.signed()).values()) == cost

        said, chunks, victim = "", 0, devnet.nodes[1]
        answer = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        async for chunk in answer:
            if chunk.choices and chunk.choices[0].delta.content:
                said += chunk.choices[0].delta.content
                chunks += 1
                if chunks == KILL_AFTER:
                    victim = await serving(devnet, 1)
                    await victim.kill()
        assert chunks > KILL_AFTER
        assert said == expected
        usage = chunk.usage
        assert usage is not None
        assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), TOKENS)
        extra = usage.model_extra or {}
        assert victim.account not in {hop["account"] for hop in extra["route"]["hops"]}
        # The last voucher may have been on its way to the victim when it died, or never been signed.
        assert cost < sum((await customer.signed()).values()) - cost <= extra["cost_base_units"]
    await victim.start()
