"""Whatever is sent to the gateway, it answers with a typed 4xx in OpenAI's form and generates nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from scripted_backend import MODEL, ScriptedBackend

from corolla.gateway.app import create_app
from corolla.gateway.body import MAX_BODY

ASKED = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
PROMPT = {"model": MODEL, "prompt": "Hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


async def post(path: str, content: bytes, **headers: str) -> tuple[httpx.Response, ScriptedBackend]:
    backend = ScriptedBackend()
    transport = httpx.ASGITransport(create_app(backend))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.post(path, content=content, headers={"content-type": "application/json"} | headers)
    return answer, backend


def said(body: Any) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "content", "param"),
    [
        (CHAT, b"", None),
        (CHAT, b"{", None),
        (CHAT, b"\xff\xfe", None),
        (CHAT, b"[]", None),
        (CHAT, b"null", None),
        (CHAT, b"[" * 100_000, None),
        (CHAT, said({"model": MODEL}), "messages"),
        (CHAT, said(ASKED | {"messages": []}), "messages"),
        (CHAT, said(ASKED | {"messages": [{"role": "user"}]}), "messages"),
        (CHAT, said(ASKED | {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages"),
        (CHAT, said(ASKED)[:-1] + b', "temperature": NaN}', None),
        (CHAT, said(ASKED)[:-1] + b', "temperature": 1e999}', None),
        (CHAT, said(ASKED)[:-1] + b', "user": "\\ud800"}', None),
        (CHAT, said(ASKED | {"temperature": "1"}), "temperature"),
        (CHAT, said(ASKED | {"temperature": 2.1}), "temperature"),
        (CHAT, said(ASKED | {"temperature": True}), "temperature"),
        (CHAT, said(ASKED | {"top_p": 0}), "top_p"),
        (CHAT, said(ASKED | {"max_tokens": 0}), "max_tokens"),
        (CHAT, said(ASKED | {"max_tokens": 10**400}), "max_tokens"),
        (CHAT, said(ASKED | {"max_tokens": 5, "max_completion_tokens": 5}), None),
        (CHAT, said(ASKED | {"n": 9}), "n"),
        (CHAT, said(ASKED | {"stop": ["a"] * 5}), "stop"),
        (CHAT, said(ASKED | {"stop": ""}), "stop"),
        (CHAT, said(ASKED | {"seed": 2**63}), "seed"),
        (CHAT, said(ASKED | {"top_logprobs": 3}), None),
        (CHAT, said(ASKED | {"logit_bias": {"5": 1}}), "logit_bias"),
        (CHAT, said(ASKED | {"audio": {}}), "audio"),
        (CHAT, said(ASKED | {"stream_options": {"include_usage": True}}), None),
        (CHAT, said(ASKED | {"tool_choice": "required"}), None),
        (CHAT, said(ASKED | {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}), None),
        (CHAT, said(ASKED | {"tools": [TOOL | {"function": {"name": "a b"}}]}), "tools"),
        (CHAT, said(ASKED | {"tools": [TOOL], "response_format": {"type": "json_object"}}), None),
        (CHAT, said(ASKED | {"response_format": {"type": "yaml"}}), "response_format"),
        (COMPLETIONS, said({"model": MODEL}), "prompt"),
        (COMPLETIONS, said(PROMPT | {"prompt": []}), "prompt"),
        (COMPLETIONS, said(PROMPT | {"prompt": [1, "a"]}), "prompt"),
        (COMPLETIONS, said(PROMPT | {"prompt": ["a"] * 5, "n": 2}), None),
        (COMPLETIONS, said(PROMPT | {"logprobs": 6}), "logprobs"),
        (COMPLETIONS, said(PROMPT | {"echo": True}), "echo"),
        (COMPLETIONS, said(PROMPT | {"suffix": "x"}), "suffix"),
        (COMPLETIONS, said(PROMPT | {"best_of": 2}), None),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(path: str, content: bytes, param: str | None) -> None:
    answer, backend = await post(path, content)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert backend.asked == []


@pytest.mark.anyio
async def test_a_body_has_a_largest_size() -> None:
    for length in ({}, {"content-length": "5"}):
        answer, backend = await post(CHAT, b" " * (MAX_BODY + 1), **length)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "body_too_large"
        assert backend.asked == []


@pytest.mark.anyio
async def test_nulls_and_labels_are_as_good_as_nothing() -> None:
    labels = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "logit_bias": None}
    answer, backend = await post(CHAT, said(ASKED | labels | {"stop": None, "max_tokens": None, "stream": None}))
    assert answer.status_code == 200
    assert backend.asked[0].params.stop == ()


@pytest.mark.anyio
async def test_paths_and_methods_that_are_not_there_are_told_in_openais_form() -> None:
    transport = httpx.ASGITransport(create_app(ScriptedBackend()))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        for answer, status in ((await http.get("/v1/nothing"), 404), (await http.get(CHAT), 405)):
            assert answer.status_code == status
            assert answer.json()["error"]["type"] == "invalid_request_error"
        metrics = (await http.get("/metrics")).text
    assert 'corolla_gateway_requests_total{endpoint="other",status="404"} 1.0' in metrics


schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(ScriptedBackend()))


@schema.parametrize()
@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_openapi_document_names(case: schemathesis.Case) -> None:
    model = case.body.get("model") if isinstance(case.body, dict) else None
    if isinstance(model, str) and 1 <= len(model) <= 256:
        case.body["model"] = MODEL  # or nearly every answer would be that there is no such model
    # What fits together in a request (stream_options with stream, ...) is beyond JSON Schema: 400s are expected.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
