"""The gateway's wire form, as the unmodified openai package reads it, over a backend that follows a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from scripted_backend import MODEL, PRICE, PROMPT_TOKENS, Script, ScriptedBackend

from corolla.gateway.app import create_app
from corolla_core.protocol.errors import (
    ChainUnreachable,
    ContextExceeded,
    CorollaError,
    InsufficientFunds,
    NoRoute,
    PeerUnreachable,
    SpendingLimitExceeded,
)
from corolla_core.protocol.units import nectar_to_text

pytestmark = pytest.mark.anyio
ASKED: list[Any] = [{"role": "user", "content": "Hi"}]


@asynccontextmanager
async def served(backend: ScriptedBackend) -> AsyncIterator[tuple[AsyncOpenAI, httpx.AsyncClient]]:
    transport = httpx.ASGITransport(create_app(backend, now=lambda: 1_700_000_000.0))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield AsyncOpenAI(api_key="none", base_url="http://gateway/v1", http_client=http, max_retries=0), http


async def test_a_chat_is_answered_whole_with_what_it_cost() -> None:
    async with served(ScriptedBackend()) as (client, _):
        made = await client.chat.completions.create(model=MODEL, messages=ASKED)
    assert made.choices[0].message.content == "Hello, world"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens, made.usage.total_tokens) == (5, 2, 7)
    extra = made.usage.model_extra or {}
    assert extra["cost_base_units"] == 7 * PRICE
    assert extra["cost"] == nectar_to_text(7 * PRICE) == "0.007000000000000007"
    assert extra["route"] == {"backend": "script", "hops": []}


async def test_a_stream_is_openais_to_the_byte() -> None:
    async with served(ScriptedBackend()) as (_, http):
        body = {"model": MODEL, "messages": ASKED, "stream": True, "stream_options": {"include_usage": True}}
        answer = await http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-corolla-route"] == "script"
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {(chunk["id"], chunk["object"], chunk["created"], chunk["model"]) for chunk in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", 1_700_000_000, MODEL)
    }
    deltas = [(choice["delta"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"]]
    assert deltas == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hello"}, None),
        ({"content": ", world"}, None),
        ({}, "stop"),
    ]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["cost_base_units"] == 7 * PRICE


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ContextExceeded(limit=8, needed=9), 400, "context_length_exceeded"),
        (InsufficientFunds(available=0, needed=1), 402, "InsufficientFunds"),
        (SpendingLimitExceeded(limit=0, needed=1), 402, "SpendingLimitExceeded"),
        (NoRoute(missing=[3]), 503, "no_route"),
        (PeerUnreachable(peer="x"), 503, "PeerUnreachable"),
        (ChainUnreachable(), 503, "ChainUnreachable"),
    ],
)
async def test_what_fails_before_any_text_has_a_status_of_its_own(error: CorollaError, status: int, code: str) -> None:
    async with served(ScriptedBackend(Script([], error=error))) as (client, http):
        for stream in (False, True):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(model=MODEL, messages=ASKED, stream=stream)
            assert (caught.value.status_code, caught.value.code) == (status, code)
            assert ("retry-after" in caught.value.response.headers) == (status == 503)
        metrics = (await http.get("/metrics")).text
    counted = f'corolla_gateway_requests_total{{endpoint="/v1/chat/completions",status="{status}"}} 2.0'
    assert counted in metrics


async def test_what_fails_in_mid_stream_comes_as_an_event() -> None:
    async with served(ScriptedBackend(Script(["Hel"], error=NoRoute(missing=[3])))) as (client, _):
        stream = aiter(await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
        seen = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
        with pytest.raises(openai.APIError) as caught:
            await anext(stream)
    assert seen == ["", "Hel"]
    assert caught.value.code == "no_route"


async def test_models_are_listed_and_unknown_ones_are_not_found() -> None:
    async with served(ScriptedBackend()) as (client, _):
        assert [model.id async for model in await client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).owned_by == "corolla"
        for call in (
            client.models.retrieve("other/model"),
            client.completions.create(model="other", prompt="x"),
            client.chat.completions.create(model="other", messages=ASKED),
        ):
            with pytest.raises(openai.NotFoundError) as caught:
                await call
            assert caught.value.code == "model_not_found"


async def test_whoever_leaves_ends_the_text_and_pays_for_no_more() -> None:
    gate = asyncio.Semaphore(0)
    backend = ScriptedBackend(Script(["word "] * 100, gate=gate))
    app = create_app(backend)
    for stream in (True, False):
        left = asyncio.Event()
        body = json.dumps({"model": MODEL, "messages": ASKED, "stream": stream}).encode()
        given = [{"type": "http.request", "body": body}]

        async def receive(given: list[Any] = given, left: asyncio.Event = left) -> Any:
            if given:
                return given.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            return None

        scope = {
            "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        answering = asyncio.create_task(app(scope, receive, send))
        for _ in range(3):
            gate.release()
        await backend.made(4)
        left.set()
        await answering
        for _ in range(10):
            await asyncio.sleep(0)
        assert backend.started.pop().closed
        assert gate.locked()


async def test_metrics_count_tokens_cost_and_their_times() -> None:
    async with served(ScriptedBackend()) as (client, http):
        await client.completions.create(model=MODEL, prompt="Hi", n=2)
        await client.completions.create(model=MODEL, prompt="Hi")
        metrics = (await http.get("/metrics")).text.splitlines()
    assert {
        'corolla_gateway_tokens_total{kind="prompt"} 10.0',
        'corolla_gateway_tokens_total{kind="completion"} 6.0',
        "corolla_gateway_first_token_seconds_count 2.0",
        "corolla_gateway_token_seconds_count 2.0",
        "corolla_gateway_running_streams 0.0",
    } <= set(metrics)
    (cost,) = [line.split()[1] for line in metrics if line.startswith("corolla_gateway_cost_nectar_total")]
    assert float(cost) == pytest.approx(21 * PRICE / 1e18)  # two choices of 7 tokens each and one


async def test_readiness_names_what_is_lacking() -> None:
    backend = ScriptedBackend()
    async with served(backend) as (_, http):
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        backend.lacks = ["no node serves blocks 3"]
        answer = await http.get("/readyz")
        assert answer.status_code == 503
        assert "blocks 3" in answer.json()["error"]["message"]
        assert (await http.get("/healthz")).status_code == 200


async def test_several_choices_share_a_prompt_and_are_told_apart() -> None:
    backend = ScriptedBackend()
    async with served(backend) as (client, _):
        made = await client.chat.completions.create(model=MODEL, messages=ASKED, n=3, seed=7)
        assert [choice.index for choice in made.choices] == [0, 1, 2]
        assert [ask.params.seed for ask in backend.asked] == [7, 8, 9]
        assert made.usage is not None
        assert made.usage.prompt_tokens == PROMPT_TOKENS
        assert (made.usage.model_extra or {})["cost_base_units"] == 3 * 7 * PRICE
        texts = ["", "", ""]
        async for chunk in await client.chat.completions.create(model=MODEL, messages=ASKED, n=3, stream=True):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == ["Hello, world"] * 3
