"""Answers in OpenAI's form, whole or in chunks."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from corolla.gateway.backend import Delta, Route, Token
from corolla.gateway.choices import Ended, Item
from corolla.gateway.requests import ChatRequest, CompletionRequest
from corolla.gateway.tools import ToolCall, ToolReader, parse_call
from corolla.values import FinishReason, Spent
from corolla_core.protocol.units import nectar_to_text

_FINISH: dict[FinishReason, str] = {"eos": "stop", "stop": "stop", "length": "length"}


class Reply(Protocol):
    """How one request is answered."""

    def opening(self) -> list[dict[str, Any]]:
        """The chunks before any text."""
        ...

    def chunks(self, index: int, item: Item) -> list[dict[str, Any]]:
        """What to send of this; everything is remembered for `whole`."""
        ...

    def last(self, spent: Spent, route: Route) -> dict[str, Any]:
        """The chunk that states the usage."""
        ...

    def whole(self, spent: Spent, route: Route) -> dict[str, Any]:
        """All of it at once, after the last item."""
        ...


def usage_of(spent: Spent, route: Route) -> dict[str, Any]:
    """OpenAI's usage, and what it cost: `cost` in Nectar as exact decimal text, `cost_base_units` in 10^-18 of it."""
    return {
        "prompt_tokens": spent.prompt_tokens,
        "completion_tokens": spent.tokens,
        "total_tokens": spent.prompt_tokens + spent.tokens,
        "prompt_tokens_details": {"cached_tokens": spent.cached_tokens},
        "cost": nectar_to_text(spent.cost),
        "cost_base_units": int(spent.cost),
        "route": {
            "backend": route.backend,
            "hops": [{"account": hop.account, "blocks": [hop.span.start, hop.span.end]} for hop in route.hops],
        },
    }


@dataclass(slots=True)
class _Said:
    """One choice so far."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)
    finish: str | None = None


class ChatReply:
    """A chat completion."""

    def __init__(self, request: ChatRequest, *, created: int, choices: int) -> None:
        self._request = request
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": created, "model": request.model}
        self._said = [_Said() for _ in range(choices)]
        self._readers = [ToolReader() for _ in range(choices)]

    def opening(self) -> list[dict[str, Any]]:
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(len(self._said))]

    def chunks(self, index: int, item: Item) -> list[dict[str, Any]]:
        said, mode, made = self._said[index], self._request.tool_mode, []
        if isinstance(item, Delta):
            said.tokens += item.tokens
            logprobs = self._logprobs(item.tokens)
            if mode == "forced":  # all of it is one call, known at its end
                self._said[index].text += item.text
                return [self._chunk(index, {}, logprobs=logprobs)] if logprobs else []
            parts: list[str | ToolCall] = [item.text] if item.text else []
            if mode == "auto":
                parts = self._readers[index].push(item.text)
            if not parts and logprobs:
                return [self._chunk(index, {}, logprobs=logprobs)]
            for part in parts:
                made.append(self._chunk(index, self._delta(said, part), logprobs=logprobs))
                logprobs = None
            return made
        if mode == "auto":
            made = [self._chunk(index, self._delta(said, part)) for part in self._readers[index].flush()]
        elif mode == "forced" and (call := parse_call(said.text)) is not None:
            said.text = ""
            made = [self._chunk(index, self._delta(said, call))]
        elif mode == "forced":
            made = [self._chunk(index, {"content": said.text})]
        said.finish = "tool_calls" if said.calls and item.finish != "length" else _FINISH[item.finish]
        return [*made, self._chunk(index, {}, finish=said.finish)]

    def last(self, spent: Spent, route: Route) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage_of(spent, route)}

    def whole(self, spent: Spent, route: Route) -> dict[str, Any]:
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [
                {
                    "index": index,
                    "message": self._message(said),
                    "logprobs": self._logprobs(said.tokens),
                    "finish_reason": said.finish,
                }
                for index, said in enumerate(self._said)
            ],
            "usage": usage_of(spent, route),
        }

    def _delta(self, said: _Said, part: str | ToolCall) -> dict[str, Any]:
        if isinstance(part, str):
            said.text += part
            return {"content": part}
        said.calls.append(part)
        said.call_ids.append(f"call_{secrets.token_hex(12)}")
        number = len(said.calls) - 1
        return {"tool_calls": [{"index": number, **_call(part, said.call_ids[number])}]}

    def _message(self, said: _Said) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
        if said.calls:
            message["content"] = said.text.strip() or None
            message["tool_calls"] = [_call(*each) for each in zip(said.calls, said.call_ids, strict=True)]
        return message

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._request.logprobs:
            return None
        return {"content": [_chat_token(token, with_top=True) for token in tokens], "refusal": None}

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": [choice]}
        return {**chunk, "usage": None} if self._request.include_usage else chunk


def _call(call: ToolCall, identifier: str) -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _chat_token(token: Token, *, with_top: bool) -> dict[str, Any]:
    said: dict[str, Any] = {
        "token": token.text,
        "logprob": token.logprob,
        "bytes": None if token.data is None else list(token.data),
    }
    if with_top:
        said["top_logprobs"] = [_chat_token(other, with_top=False) for other in token.top]
    return said


class CompletionReply:
    """A text completion."""

    def __init__(self, request: CompletionRequest, *, created: int, choices: int) -> None:
        self._request = request
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": created,
            "model": request.model,
        }
        self._said = [_Said() for _ in range(choices)]
        self._offsets = [0] * choices

    def opening(self) -> list[dict[str, Any]]:
        return []

    def chunks(self, index: int, item: Item) -> list[dict[str, Any]]:
        said = self._said[index]
        if isinstance(item, Ended):
            said.finish = _FINISH[item.finish]
            return [self._chunk(self._choice(index, "", None, said.finish))]
        logprobs = self._logprobs(item.tokens, self._offsets[index])
        said.text += item.text
        said.tokens += item.tokens
        self._offsets[index] += sum(len(token.text) for token in item.tokens)
        return [self._chunk(self._choice(index, item.text, logprobs, None))] if item.text or item.tokens else []

    def last(self, spent: Spent, route: Route) -> dict[str, Any]:
        return {**self._head, "choices": [], "usage": usage_of(spent, route)}

    def whole(self, spent: Spent, route: Route) -> dict[str, Any]:
        choices = [
            self._choice(index, said.text, self._logprobs(said.tokens, 0), said.finish)
            for index, said in enumerate(self._said)
        ]
        return {**self._head, "choices": choices, "usage": usage_of(spent, route)}

    def _choice(self, index: int, text: str, logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._request.include_usage else chunk

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        if self._request.logprobs is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{other.text: other.logprob for other in token.top} for token in tokens],
            "text_offset": offsets,
        }
