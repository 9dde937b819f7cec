"""The gateway over real servers and real blocks of a tiny model, in one process, asked by the openai package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from client_world import TEMPLATE, ClientWorld, client_world, greedy_ids, make_checkpoint
from node_peers import PRICE
from openai import AsyncOpenAI

from corolla.gateway.app import create_app
from corolla.gateway.swarm import SwarmBackend
from corolla.generation import TextStream
from corolla.local import LocalModel
from corolla.values import Balance, Prompt
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement

pytestmark = pytest.mark.anyio
THREE = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
PROMPT = "The capital of France is"
ASKED: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"), eos=255)


class WorldClient:
    """What the gateway needs of an `AsyncClient`, of a client in a world without a chain."""

    def __init__(self, world: ClientWorld) -> None:
        self._world = world
        self.chain_is_there = True

    @property
    def model(self) -> LocalModel:
        return self._world.model

    def stream(
        self, prompt: Prompt, params: SamplingParams, *, logprobs: bool = False, top_logprobs: int = 0
    ) -> TextStream:
        return self._world.engine.stream(prompt, params, logprobs=logprobs, top_logprobs=top_logprobs)

    async def nodes(self) -> list[Announcement]:
        await self._world.peers.refresh(within=0)
        return self._world.peers.announcements()

    async def balance(self) -> Balance:
        if not self.chain_is_there:
            raise ChainUnreachable("gone")
        return Balance(Address("0x"), Nectar(0), Nectar(0), Nectar(0), Nectar(0), 0)


@asynccontextmanager
async def gateway(
    checkpoint: Checkpoint, folder: Path, **options: Any
) -> AsyncIterator[tuple[AsyncOpenAI, ClientWorld, httpx.AsyncClient]]:
    async with client_world(checkpoint, folder, options.pop("nodes", THREE), **options) as world:
        transport = httpx.ASGITransport(create_app(SwarmBackend(WorldClient(world))))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30) as http:
            client = AsyncOpenAI(api_key="none", base_url="http://gateway/v1", http_client=http, max_retries=0)
            yield client, world, http


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def shared(
    checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[AsyncOpenAI, ClientWorld]]:
    """One gateway for the tests that leave it as they found it."""
    async with gateway(checkpoint, tmp_path_factory.mktemp("shared")) as (client, world, _):
        yield client, world


async def test_a_completion_is_plain_transformers_text_and_its_cost_is_what_was_signed(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    async with gateway(checkpoint, tmp_path) as (client, world, _):
        ids = list(world.model.tokenizer(PROMPT).input_ids)
        expected = world.model.text(greedy_ids(checkpoint, ids, 20))
        for prompt in (PROMPT, ids):
            made = await client.completions.create(model="tiny", prompt=prompt, max_tokens=20, temperature=0)
            assert made.choices[0].text == expected
            assert made.choices[0].finish_reason == "length"
            assert made.usage is not None
            extra = made.usage.model_extra or {}
            assert extra["cost_base_units"] == (len(ids) + 19) * 6 * PRICE
            assert [hop["blocks"] for hop in extra["route"]["hops"]] == [[0, 2], [2, 4], [4, 6]]
        assert world.wallet.committed == 2 * extra["cost_base_units"] == sum(world.paid(name) for name in THREE)


async def test_a_chat_streams_through_the_template_with_a_role_first_and_a_route(
    checkpoint: Checkpoint, shared: tuple[AsyncOpenAI, ClientWorld]
) -> None:
    client, world = shared
    ids = world.model.prompt_ids("<system>Be brief\n<user>Hi\n<assistant>")
    messages: list[Any] = [{"role": "developer", "content": "Be brief"}, *ASKED]
    asked: dict[str, Any] = {"model": "tiny", "messages": messages, "max_completion_tokens": 12, "temperature": 0}
    raw = await client.chat.completions.with_raw_response.create(**asked, stream=True)
    assert raw.headers["x-corolla-route"].startswith("swarm; 0x")
    deltas = [chunk.choices[0].delta async for chunk in raw.parse()]
    assert deltas[0].role == "assistant"
    text = "".join(delta.content or "" for delta in deltas)
    assert text == world.model.text(greedy_ids(checkpoint, ids, 12))


async def test_log_probabilities_come_with_the_likeliest_tokens(shared: tuple[AsyncOpenAI, ClientWorld]) -> None:
    client, _ = shared
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 6, "temperature": 0}
    made = await client.chat.completions.create(**asked, messages=ASKED, logprobs=True, top_logprobs=3)
    assert made.choices[0].logprobs is not None
    tokens = made.choices[0].logprobs.content or []
    assert len(tokens) == 6
    for token in tokens:  # greedy: what was chosen is the likeliest
        assert token.logprob < 0
        assert (token.top_logprobs[0].token, token.top_logprobs[0].logprob) == (token.token, token.logprob)
        assert [other.logprob for other in token.top_logprobs] == sorted(
            (other.logprob for other in token.top_logprobs), reverse=True
        )
    old = (await client.completions.create(**asked, prompt="Hi", logprobs=2)).choices[0].logprobs
    assert old is not None
    assert len(old.tokens or []) == len(old.token_logprobs or []) == len(old.top_logprobs or []) == 6
    assert old.text_offset == [sum(map(len, (old.tokens or [])[:at])) for at in range(6)]


async def test_a_seed_gives_the_same_texts_again_and_each_choice_its_own(
    shared: tuple[AsyncOpenAI, ClientWorld],
) -> None:
    client, _ = shared
    asked: dict[str, Any] = {"model": "tiny", "prompt": "Hi", "max_tokens": 12, "temperature": 1.5, "n": 2}
    first, second = [await client.completions.create(**asked, seed=11) for _ in range(2)]
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in second.choices]
    assert texts[0] != texts[1]


async def test_a_stop_string_ends_the_text_before_it(shared: tuple[AsyncOpenAI, ClientWorld]) -> None:
    client, _ = shared
    asked: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 20, "temperature": 0}
    whole = (await client.completions.create(**asked)).choices[0].text
    stop = whole[8:10]
    made = await client.completions.create(**asked, stop=["never", stop])
    assert made.choices[0].text == whole[: whole.index(stop)]
    assert made.choices[0].finish_reason == "stop"


async def test_penalties_keep_a_text_from_repeating(shared: tuple[AsyncOpenAI, ClientWorld]) -> None:
    client, _ = shared
    asked: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 40, "temperature": 0}
    plain, penalised = [
        (await client.completions.create(**asked, presence_penalty=p, frequency_penalty=p)).choices[0].text
        for p in (0, 2)
    ]
    assert len(set(penalised)) > len(set(plain))


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 5}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(2))
async def test_a_text_kept_to_a_schema_is_json_of_that_schema(
    shared: tuple[AsyncOpenAI, ClientWorld], seed: int
) -> None:
    client, _ = shared
    made = await client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=120, temperature=2, seed=seed,
        response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}},
    )  # fmt: skip
    said = json.loads(made.choices[0].message.content or "")
    assert made.choices[0].finish_reason == "stop"
    assert set(said) == {"city", "warm"}
    assert len(said["city"]) <= 5
    assert isinstance(said["warm"], bool)


async def test_a_json_object_is_json_as_far_as_it_gets(shared: tuple[AsyncOpenAI, ClientWorld]) -> None:
    client, _ = shared
    for seed in range(2):
        made = await client.chat.completions.create(
            model="tiny", messages=ASKED, max_tokens=60, temperature=2, seed=seed,
            response_format={"type": "json_object"},
        )  # fmt: skip
        text = made.choices[0].message.content or ""
        if made.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(text), dict)
        else:
            assert text.startswith("{")


async def test_a_required_tool_is_called_with_arguments_that_fit(
    shared: tuple[AsyncOpenAI, ClientWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    tools: list[Any] = [
        {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "other"}},
    ]
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    client, world = shared
    monkeypatch.setattr(world.model.tokenizer, "chat_template", "{{ tools[0].function.name }}: " + TEMPLATE)
    made = await client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=200, temperature=2, seed=1, tools=tools, tool_choice=choice
    )
    assert made.choices[0].finish_reason == "tool_calls"
    (call,) = made.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city", "warm"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strange"},
        {"type": "string", "contains": 1},
        {"$ref": "http://other/schema"},
        {"$ref": "#"},
    ],
)
async def test_a_schema_that_cannot_be_kept_to_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, schema: dict[str, Any]
) -> None:
    async with gateway(checkpoint, tmp_path) as (client, world, _http):
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(
                model="tiny", messages=ASKED,
                response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            )  # fmt: skip
        assert world.wallet.committed == 0


async def test_money_and_nodes_that_are_not_there_have_a_status_each(checkpoint: Checkpoint, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 8}
    async with gateway(checkpoint, tmp_path / "poor", free=10) as (client, _, _http):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.completions.create(**asked)
        assert (caught.value.status_code, caught.value.code) == (402, "InsufficientFunds")
    async with gateway(checkpoint, tmp_path / "gap", nodes={"a": Span(0, 2)}) as (client, _, http):
        with pytest.raises(openai.InternalServerError) as unavailable:
            await client.completions.create(**asked)
        assert (unavailable.value.status_code, unavailable.value.code) == (503, "no_route")
        assert int(unavailable.value.response.headers["retry-after"]) > 0
        assert "blocks 2, 3, 4, 5" in (await http.get("/readyz")).json()["error"]["message"]
        with pytest.raises(openai.BadRequestError) as long:
            await client.completions.create(**asked | {"max_tokens": 600})
        assert long.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError):
            await client.completions.create(**asked | {"prompt": [1, 10**6]})


async def test_a_node_that_dies_in_mid_stream_changes_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with gateway(checkpoint, tmp_path, nodes=THREE | {"b2": Span(2, 4)}) as (client, world, _http):
        world.directory.throughput[world.nodes["b"].account] = 1_000_000
        expected = world.model.text(greedy_ids(checkpoint, world.model.prompt_ids(PROMPT), 24))
        asked: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
        text = ""
        async for chunk in await client.completions.create(**asked, stream=True):
            if not text:
                world.kill("b")
            text += chunk.choices[0].text
        assert text == expected


async def test_whoever_leaves_ends_the_session_and_pays_for_no_more(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async with client_world(checkpoint, tmp_path, THREE) as world:
        app = create_app(SwarmBackend(WorldClient(world)))
        left = asyncio.Event()
        body = json.dumps({"model": "tiny", "prompt": PROMPT, "max_tokens": 400, "stream": True}).encode()
        given = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            if given:
                return given.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message.get("body"):
                left.set()

        scope = {
            "type": "http", "method": "POST", "path": "/v1/completions", "raw_path": b"", "query_string": b"",
            "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await app(scope, receive, send)
        await app.state.gateway.close()
        assert all(not node.server._sessions for node in world.nodes.values())
        spent = world.wallet.committed
        assert 0 < spent < (len(PROMPT) + 60) * 6 * PRICE
        assert spent == sum(world.paid(name) for name in THREE)
        # a step that was under way when the session ended may be paid for and never charged
        assert spent - sum(world.charged(name) for name in THREE) <= 6 * PRICE
