"""Tools: told to models, and their calls read back from what a model writes, however it comes in pieces."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from scripted_backend import MODEL, Script, ScriptedBackend

from corolla.gateway.app import create_app
from corolla.gateway.tools import ToolCall, ToolReader
from corolla.tool_prompt import told_of_tools
from corolla.values import Conversation, FinishReason

ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
NO_CALL = '<tool_call>{"name": "f", "arguments": "x"}</tool_call>'
OSLO = ToolCall("weather", '{"city": "Oslo"}')


def client_of(backend: ScriptedBackend) -> AsyncOpenAI:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(create_app(backend)))
    return AsyncOpenAI(api_key="none", base_url="http://gateway/v1", http_client=http, max_retries=0)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    at = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(at)]


def read(pieces: list[str]) -> list[str | ToolCall]:
    """What the reader makes of them, neighbouring texts joined."""
    reader = ToolReader()
    joined: list[str | ToolCall] = []
    for part in [part for piece in pieces for part in reader.push(piece)] + reader.flush():
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("no call", ["no call"]),
        (f"Let me see. {CALL}", ["Let me see. ", OSLO]),
        (CALL + CALL + " and", [OSLO, OSLO, " and"]),
        (CALL.removesuffix("</tool_call>"), [OSLO]),  # a text often ends where the tag should have
        ("a < b <tool", ["a < b <tool"]),
        ("<tool_call>not json</tool_call>!", ["<tool_call>not json</tool_call>!"]),
        ("<tool_call>[1]</tool_call>", ["<tool_call>[1]</tool_call>"]),
        ('<tool_call>{"name": 5}</tool_call>', ['<tool_call>{"name": 5}</tool_call>']),
        (NO_CALL, [NO_CALL]),
        ('<tool_call>{"name": "f"}</tool_call>', [ToolCall("f", "{}")]),
        ("<tool_call>{", ["<tool_call>{"]),
    ],
)  # fmt: skip
@given(cuts=st.lists(st.integers(0, 200), max_size=8))
def test_calls_are_told_from_text_wherever_pieces_are_cut(
    text: str, parts: list[str | ToolCall], cuts: list[int]
) -> None:
    assert read(pieces_of(text, cuts)) == parts


@pytest.mark.anyio
async def test_a_call_comes_back_as_openai_has_it_whole_and_streamed() -> None:
    backend = ScriptedBackend(Script(["Let me see. <tool_", *CALL.removeprefix("<tool_")]))
    client = client_of(backend)
    made = await client.chat.completions.create(model=MODEL, messages=ASKED, tools=[WEATHER])
    message = made.choices[0].message
    assert (made.choices[0].finish_reason, message.content) == ("tool_calls", "Let me see.")
    assert [call.function.name for call in message.tool_calls or [] if call.type == "function"] == ["weather"]
    prompt = backend.asked[0].prompt
    assert isinstance(prompt, Conversation)
    assert prompt.tools == (WEATHER,)

    said, arguments, finish = "", "", None
    async for chunk in await client.chat.completions.create(model=MODEL, messages=ASKED, tools=[WEATHER], stream=True):
        choice = chunk.choices[0]
        said += choice.delta.content or ""
        for call in choice.delta.tool_calls or []:
            assert call.id is not None
            assert call.id.startswith("call_")
            assert call.function is not None
            arguments += call.function.arguments or ""
        finish = choice.finish_reason
    assert (said, json.loads(arguments), finish) == ("Let me see. ", {"city": "Oslo"}, "tool_calls")


@pytest.mark.anyio
@pytest.mark.parametrize("asked", [{}, {"tools": [WEATHER], "tool_choice": "none"}])
async def test_without_tools_to_choose_from_tags_are_text(asked: dict[str, Any]) -> None:
    backend = ScriptedBackend(Script([CALL]))
    made = await client_of(backend).chat.completions.create(model=MODEL, messages=ASKED, **asked)
    assert made.choices[0].message.content == CALL
    assert made.choices[0].finish_reason == "stop"
    prompt = backend.asked[0].prompt
    assert isinstance(prompt, Conversation)
    assert prompt.tools == ()


@pytest.mark.anyio
@pytest.mark.parametrize("finish", ["eos", "length"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_required_is_kept_to_its_schema_and_given_only_when_whole(
    finish: FinishReason, stream: bool
) -> None:
    text = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    backend = ScriptedBackend(Script(list(text if finish == "eos" else text[:20]), finish=finish))
    answer = await client_of(backend).chat.completions.create(
        model=MODEL, messages=ASKED, tools=[WEATHER], tool_choice="required", stream=stream
    )
    schema = json.loads(backend.asked[0].params.json_schema or "")
    assert [option["properties"]["name"] for option in schema["anyOf"]] == [{"const": "weather"}]
    if stream:
        choices = [chunk.choices[0] async for chunk in answer]
        calls = [call for choice in choices for call in choice.delta.tool_calls or []]
        said = "".join(choice.delta.content or "" for choice in choices)
        reason = choices[-1].finish_reason
    else:
        calls = answer.choices[0].message.tool_calls or []
        said, reason = answer.choices[0].message.content or "", answer.choices[0].finish_reason
    if finish == "eos":
        assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Oslo"}]
        assert (said, reason) == ("", "tool_calls")
    else:
        assert (calls, said, reason) == ([], text[:20], "length")


def test_a_template_without_tools_is_told_of_them_and_of_their_calls_in_words() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "1"},
    ]
    system, user, assistant, tool = told_of_tools(talk, [WEATHER])
    assert system["content"].startswith("Be brief.\n\n")
    assert json.dumps(WEATHER) in system["content"]
    assert user == talk[1]
    assert assistant == {"role": "assistant", "content": CALL}
    assert tool == {"role": "user", "content": "<tool_response>\nrain\n</tool_response>"}
    assert told_of_tools(talk[1:2], [WEATHER])[0]["role"] == "system"
    assert told_of_tools(talk[1:2], []) == talk[1:2]
