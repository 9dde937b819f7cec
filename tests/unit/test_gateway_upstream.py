"""An OpenAI-compatible endpoint as a backend: what is sent to it, what is read of it, and how it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from corolla.gateway.backend import Ask, Delta
from corolla.gateway.policy_file import OpenAIEntry, PrivateEntry, read_policy
from corolla.gateway.upstream import MAX_LINE, Price, Upstream, UpstreamRunning, prompt_bound
from corolla.values import Conversation
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import (
    ConfigError,
    CorollaError,
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
    UpstreamRefused,
)
from corolla_core.protocol.units import Nectar

CHAT = Conversation(({"role": "user", "content": "hello"},))
PRICE = Price(Nectar(1_000_000), Nectar(3_000_000))


def ask(prompt: Any = CHAT, **more: Any) -> Ask:
    logprobs = more.pop("logprobs", False)
    return Ask("ours", prompt, SamplingParams(max_tokens=9, **more), logprobs=logprobs, top_logprobs=2 * logprobs)


def chunk(text: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}} | more
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def usage(prompt: int, tokens: int) -> bytes:
    told = {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": tokens}}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Endpoint:
    """Answers every request with `parts`, one after another."""

    def __init__(self, *parts: bytes | Exception, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.parts, self.status, self.headers = parts, status, headers
        self.got: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)

        async def body() -> AsyncIterator[bytes]:
            for part in self.parts:
                if isinstance(part, Exception):
                    raise part
                yield part

        return httpx.Response(self.status, content=body(), headers=self.headers)

    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.got[0].content)
        return told


def read(endpoint: Endpoint, what: Ask | None = None) -> tuple[list[Delta], UpstreamRunning, CorollaError | None]:
    async def main() -> tuple[list[Delta], UpstreamRunning, CorollaError | None]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(endpoint)) as http:
            there = Upstream(
                "https://there.test/v1/", key="sk-secret", models={"ours": "theirs"}, price=PRICE, http=http
            )
            running, deltas, failed = there.start(what or ask()), [], None
            try:
                async for delta in running:
                    deltas.append(delta)
            except CorollaError as error:
                failed = error
            await running.aclose()
            return deltas, running, failed

    return asyncio.run(main())


def test_a_text_is_streamed_counted_and_priced_as_the_endpoint_counts_it() -> None:
    endpoint = Endpoint(
        b": hi\n\n" + chunk("Hel"), chunk("lo")[:9], chunk("lo")[9:], chunk(finish_reason="length"), usage(5, 2), DONE
    )
    deltas, running, failed = read(endpoint)
    assert failed is None
    assert [delta.text for delta in deltas] == ["Hel", "lo"]
    assert (running.finish, running.spent.tokens, running.spent.cost) == ("length", 2, 5 + 3 * 2)
    assert str(endpoint.got[0].url) == "https://there.test/v1/chat/completions"
    assert endpoint.got[0].headers["authorization"] == "Bearer sk-secret"
    assert endpoint.body() == {
        "model": "theirs",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_everything_that_means_something_is_passed_on() -> None:
    called = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    tool = {"type": "function", "function": {"name": "add"}}
    prompt = Conversation(({"role": "assistant", "content": "", "tool_calls": [called]},), (tool,))
    endpoint = Endpoint(chunk("x"), DONE)
    read(
        endpoint, ask(prompt, stop=("a",), seed=7, presence_penalty=0.5, logprobs=True, json_schema='{"type": "array"}')
    )
    body = endpoint.body()
    assert (body["stop"], body["seed"], body["presence_penalty"]) == (["a"], 7, 0.5)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "array"}
    assert (body["tools"], body["tool_choice"]) == ([tool], "none")
    assert body["messages"][0]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


def test_a_plain_prompt_goes_to_completions_and_token_ids_nowhere() -> None:
    endpoint = Endpoint(b'data: {"choices": [{"text": "and on"}]}\n\n', DONE)
    deltas, _, _ = read(endpoint, ask("once upon"))
    assert endpoint.got[0].url.path == "/v1/completions"
    assert endpoint.body()["prompt"] == "once upon"
    assert deltas == [Delta("and on")]
    unasked = Endpoint(DONE)
    assert isinstance(read(unasked, ask([1, 2, 3]))[2], UpstreamRefused)
    assert not unasked.got


def test_calls_of_tools_come_back_as_models_write_them() -> None:
    def part(**function: str) -> bytes:
        return chunk(delta={"tool_calls": [{"index": 0, "function": function}]})

    deltas, _running, failed = read(Endpoint(part(name="add", arguments='{"a"'), part(arguments=": 1}"), DONE))
    assert failed is None
    text = "".join(delta.text for delta in deltas)
    assert json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>")) == {
        "name": "add",
        "arguments": {"a": 1},
    }
    assert deltas[0].text == "", "the first token is told when it comes"
    _, _, failed = read(Endpoint(part(name="add", arguments="{"), DONE))
    assert isinstance(failed, PeerMisbehaved)


def test_log_probabilities_come_with_their_tokens() -> None:
    told = {
        "content": [{"token": "a", "bytes": [97], "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1}]}]
    }
    deltas, _, _ = read(Endpoint(chunk("a", logprobs=told), DONE), ask(logprobs=True))
    (token,) = deltas[0].tokens
    assert (token.text, token.data, token.logprob, token.top[0].text) == ("a", b"a", -0.5, "b")


@pytest.mark.parametrize(
    ("status", "body", "headers", "words", "wait"),
    [
        (429, b'{"error": {"message": "slow down"}}', {"retry-after": "7"}, "slow down", 7),
        (401, b'{"error": "who are you"}', {}, "who are you", None),
        (500, b"<html>", {"retry-after": "Wed, 21 Oct 2026"}, "no reason given", None),
        (400, b"[" * 5000, {}, "no reason given", None),
    ],
)
def test_a_refusal_carries_its_status_words_and_wait(
    status: int, body: bytes, headers: dict[str, str], words: str, wait: int | None
) -> None:
    deltas, running, failed = read(Endpoint(body, status=status, headers=headers))
    assert isinstance(failed, UpstreamRefused)
    assert (failed.message, failed.status, failed.retry_after) == (words, status, wait)
    assert deltas == []
    assert running.spent.cost == 0, "nothing came, nothing is charged"


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ([chunk("a")], PeerUnreachable),
        ([httpx.ConnectError("no")], PeerUnreachable),
        ([chunk("a"), httpx.ReadTimeout("slow")], PeerTimeout),
        ([b"data: {\n\n"], PeerMisbehaved),
        ([b"data: 7\n\n"], PeerMisbehaved),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], PeerMisbehaved),
        ([b'data: {"choices": 7}\n\n'], PeerMisbehaved),
        ([b'data: {"choices": [{"delta": {"content": 7}}]}\n\n'], PeerMisbehaved),
        ([b'data: {"choices": [], "usage": {"prompt_tokens": -1, "completion_tokens": 1}}\n\n'], PeerMisbehaved),
        ([b'data: {"error": {"message": "broke"}}\n\n'], UpstreamRefused),
        ([b"x" * (MAX_LINE + 1)], PeerMisbehaved),
    ],
)
def test_an_endpoint_that_breaks_off_or_talks_nonsense_is_a_typed_error(
    parts: list[bytes | Exception], kind: type[CorollaError]
) -> None:
    assert isinstance(read(Endpoint(*parts))[2], kind)


def test_a_text_cut_off_costs_no_more_than_could_be_reserved_for_it() -> None:
    _, running, failed = read(Endpoint(chunk("a"), chunk("b"), httpx.ReadError("gone")))
    assert failed is not None
    assert running.spent.cost == prompt_bound(ask()) + 3 * 2
    assert PRICE.of(1, 0) == 1
    assert Price(Nectar(1), Nectar(0)).of(1, 0) == 1, "rounded up"


POLICY = """
[[backend]]
name = "hospital"
kind = "private"
network = "hospital.json"
model = "ours"
[[backend]]
name = "elsewhere"
kind = "openai"
base_url = "https://there.test/v1"
key_env = "THERE"
models = { ours = "theirs" }
price = { prompt = "0.5", completion = "1" }
most_cost = "0.25"
most_wait = 3
"""


def test_a_policy_is_read_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    first, second = read_policy(path).backend
    assert isinstance(first, PrivateEntry)
    assert isinstance(second, OpenAIEntry)
    assert second.conditions(private=False).most_cost == 25 * 10**16
    assert second.price.price().of(1_000_000, 0) == 5 * 10**17
    http = httpx.AsyncClient()
    assert second.upstream(http, {"THERE": "sk"}).models == ["ours"]
    with pytest.raises(ConfigError, match="THERE"):
        second.upstream(http, {})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("", "backend"),
        ("backend = [", "policy"),
        (POLICY.replace('"private"', '"pirate"'), "kind"),
        (POLICY.replace('"0.25"', '"much"'), "most_cost"),
        (POLICY.replace('"hospital"', '"a b"'), "name"),
        (POLICY + "colour = 1", "colour"),
        (POLICY.replace("https://", "ftp://"), "base_url"),
    ],
)
def test_a_mistake_in_a_policy_is_named(tmp_path: Path, wrong: str, named: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(wrong)
    with pytest.raises(ConfigError, match=named):
        read_policy(path)
