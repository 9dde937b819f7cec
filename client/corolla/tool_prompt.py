"""Tools for models whose chat template does not know of them: told in words, in the form of Nous Research's Hermes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_INTRODUCTION = (
    "You may call one or more functions to assist with the user query.\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n</tools>\n"
    "For each function call, return a JSON object with its name and arguments within <tool_call></tool_call> tags:\n"
    '<tool_call>\n{{"name": "<function name>", "arguments": {{…}}}}\n</tool_call>'
)


def told_of_tools(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Messages of nothing but role and content that say the same: tools in the system's message, calls and what they
    returned in tags."""
    told: list[Mapping[str, Any]] = [_plain(message) for message in messages]
    if not tools:
        return told
    introduction = _INTRODUCTION.format(tools="\n".join(json.dumps(tool) for tool in tools))
    if told and told[0]["role"] == "system":
        return [{"role": "system", "content": f"{told[0]['content']}\n\n{introduction}"}, *told[1:]]
    return [{"role": "system", "content": introduction}, *told]


def _plain(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = [f"<tool_call>\n{json.dumps(call['function'])}\n</tool_call>" for call in message.get("tool_calls") or ()]
    said = [message["content"]] if message["content"] or not calls else []
    return {"role": message["role"], "content": "\n".join([*said, *calls])}
