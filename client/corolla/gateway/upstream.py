"""Any OpenAI-compatible endpoint as a backend."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from corolla.gateway.backend import Ask, Delta, Route, Token
from corolla.values import Conversation, FinishReason, Spent
from corolla_core.protocol.errors import PeerMisbehaved, PeerTimeout, PeerUnreachable, UpstreamRefused
from corolla_core.protocol.units import Nectar

#: Connecting; sending; and the longest silence, before the first token or between two.
TIMEOUT = httpx.Timeout(connect=5.0, write=10.0, read=60.0, pool=5.0)
#: An endpoint that sends longer lines, or a longer error, is not one.
MAX_LINE = 1 << 20
_MILLION = 10**6
#: What an endpoint's template may add to a message, in tokens.
_MESSAGE_OVERHEAD = 16
_FINISHES: Mapping[str, FinishReason] = {"length": "length", "stop": "stop", "tool_calls": "stop"}


@dataclass(frozen=True, slots=True)
class Price:
    """Base units for a million tokens."""

    prompt: Nectar
    completion: Nectar

    def of(self, prompt: int, completion: int) -> Nectar:
        """Rounded up: a text is never free that has a price."""
        return Nectar(-(-(self.prompt * prompt + self.completion * completion) // _MILLION))


class Upstream:
    """The endpoint at `base_url` (with its `/v1`). `models`: ours to what they are called there."""

    def __init__(
        self, base_url: str, *, key: str | None, models: Mapping[str, str], price: Price, http: httpx.AsyncClient
    ) -> None:
        self._url = base_url.rstrip("/")
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._names = dict(models)
        self._price = price
        self._http = http

    @property
    def models(self) -> Sequence[str]:
        return list(self._names)

    def start(self, ask: Ask) -> UpstreamRunning:
        return UpstreamRunning(self, ask)

    async def lacking(self) -> list[str]:
        """Nothing: whether it can work is seen when it is asked."""
        return []

    async def most(self, ask: Ask) -> Nectar:
        return self.cost(prompt_bound(ask), ask.params.max_tokens)

    def cost(self, prompt: int, completion: int) -> Nectar:
        return self._price.of(prompt, completion)

    async def events(self, ask: Ask) -> AsyncGenerator[dict[str, Any]]:
        """What it streams for `ask`. Raises UpstreamRefused or another NetworkError."""
        path, body = request_of(ask, self._names[ask.model])
        request = self._http.build_request("POST", self._url + path, json=body, headers=self._headers, timeout=TIMEOUT)
        try:
            response = await self._http.send(request, stream=True)
            try:
                if response.status_code != 200:
                    raise _refusal(response.status_code, response.headers, await _bounded(response))
                async for line in _lines(response):
                    if line.startswith(b"data:"):
                        data = line[5:].strip()
                        if data == b"[DONE]":
                            return
                        yield _event(data)
            finally:
                await response.aclose()
        except httpx.TimeoutException:
            raise PeerTimeout("the endpoint does not answer", peer=self._url) from None
        except httpx.HTTPError as error:
            raise PeerUnreachable(f"the endpoint fails: {type(error).__name__}", peer=self._url) from None
        raise PeerUnreachable("the endpoint's answer was cut off", peer=self._url)


class UpstreamRunning:
    """A text of an endpoint's."""

    def __init__(self, upstream: Upstream, ask: Ask) -> None:
        self._upstream = upstream
        self._ask = ask
        self._events = upstream.events(ask)
        self._finish: FinishReason | None = None
        self._usage: tuple[int, int] | None = None
        self._deltas = 0
        self._made = self._make()

    @property
    def route(self) -> Route:
        return Route("upstream")

    @property
    def spent(self) -> Spent:
        """As the endpoint counts it; before it has, what was seen, and of the prompt the most it can be."""
        if self._usage is None and not self._deltas:
            return Spent()
        prompt, tokens = self._usage or (prompt_bound(self._ask), self._deltas)
        return Spent(prompt, 0, tokens, self._upstream.cost(prompt, tokens))

    @property
    def finish(self) -> FinishReason:
        return self._finish or "stop"

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._made

    async def aclose(self) -> None:
        await self._made.aclose()
        await self._events.aclose()

    async def _make(self) -> AsyncGenerator[Delta]:
        calls = _Calls()
        async for event in self._events:
            try:
                self._count(event)
                delta = self._read(event, calls)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError):
                raise PeerMisbehaved("the endpoint does not speak OpenAI's API") from None
            if delta is not None:
                self._deltas += 1
                yield delta
        if text := calls.text():
            yield Delta(text)

    def _count(self, event: dict[str, Any]) -> None:
        if event.get("usage"):
            usage = event["usage"]
            prompt, tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            if prompt < 0 or tokens < 0:
                raise ValueError("negative usage")
            self._usage = prompt, tokens

    def _read(self, event: dict[str, Any], calls: _Calls) -> Delta | None:
        if not event.get("choices"):
            return None
        choice = event["choices"][0]
        if choice.get("finish_reason"):
            self._finish = _FINISHES.get(choice["finish_reason"], "stop")
        said = choice.get("delta") or {}
        calls.add(said.get("tool_calls") or [])
        text = said.get("content") or choice.get("text") or ""
        if not isinstance(text, str):
            raise TypeError("text is a string")
        listed = (choice.get("logprobs") or {}).get("content") or []
        tokens = tuple(_token(each) for each in listed) if self._ask.logprobs else ()
        return Delta(text, tokens) if text or tokens or said.get("tool_calls") else None


class _Calls:
    """Calls of tools as an endpoint streams them, told as models write them: the gateway reads them from the text."""

    def __init__(self) -> None:
        self._named: dict[int, list[str]] = {}

    def add(self, parts: list[dict[str, Any]]) -> None:
        for part in parts:
            name, arguments = self._named.setdefault(int(part["index"]), ["", ""])
            function = part.get("function") or {}
            self._named[int(part["index"])] = [
                name + (function.get("name") or ""),
                arguments + (function.get("arguments") or ""),
            ]

    def text(self) -> str:
        """Raises PeerMisbehaved for arguments that are no JSON object."""
        told = []
        for _, (name, arguments) in sorted(self._named.items()):
            try:
                call = {"name": name, "arguments": json.loads(arguments or "{}")}
            except ValueError:
                raise PeerMisbehaved("the endpoint calls a tool with what is no JSON") from None
            told.append(f"<tool_call>\n{json.dumps(call)}\n</tool_call>")
        return "\n".join(told)


def request_of(ask: Ask, model: str) -> tuple[str, dict[str, Any]]:
    """Path and body of the same request at an endpoint. Raises UpstreamRefused for what has no words there."""
    params = ask.params
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if params.stop:
        body["stop"] = list(params.stop)
    if params.seed is not None:
        body["seed"] = params.seed
    for name in ("presence_penalty", "frequency_penalty"):
        if value := getattr(params, name):
            body[name] = value
    prompt = ask.prompt
    if isinstance(prompt, str) and not ask.logprobs and params.json_schema is None:
        return "/completions", body | {"prompt": prompt}
    if not isinstance(prompt, Conversation):
        raise UpstreamRefused("token ids and log probabilities of completions go to the swarm only", status=501)
    body["messages"] = [_message(message) for message in prompt.messages]
    if prompt.tools:
        body["tools"] = [dict(tool) for tool in prompt.tools]
    if params.json_schema is not None:
        schema = json.loads(params.json_schema)
        body["response_format"] = (
            {"type": "json_object"}
            if schema == {"type": "object"}
            else {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        )
        if prompt.tools:  # a call that must be made is asked for as its JSON
            body["tool_choice"] = "none"
    if ask.logprobs:
        body |= {"logprobs": True, "top_logprobs": ask.top_logprobs}
    return "/chat/completions", body


def prompt_bound(ask: Ask) -> int:
    """The most tokens a prompt can be: every token is a byte at least."""
    prompt = ask.prompt
    if isinstance(prompt, str):
        return len(prompt.encode()) + _MESSAGE_OVERHEAD
    if isinstance(prompt, Conversation):
        said = sum(
            len(json.dumps(dict(each), ensure_ascii=False).encode()) for each in (*prompt.messages, *prompt.tools)
        )
        return said + _MESSAGE_OVERHEAD * (len(prompt.messages) + len(prompt.tools) + 1)
    return len(prompt)


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    told = [
        call | {"function": {**call["function"], "arguments": _as_text(call["function"]["arguments"])}}
        for call in calls
    ]
    return {**message, "tool_calls": told}


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _token(raw: dict[str, Any]) -> Token:
    data = raw.get("bytes")
    top = tuple(_token(each) for each in raw.get("top_logprobs") or ())
    return Token(str(raw["token"]), None if data is None else bytes(data), float(raw["logprob"]), top)


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        raise PeerMisbehaved("the endpoint sends what is no JSON") from None
    if not isinstance(event, dict):
        raise PeerMisbehaved("the endpoint sends what is no event")
    if event.get("error"):
        raise UpstreamRefused(_words(event), status=503)
    return event


def _refusal(status: int, headers: httpx.Headers, body: bytes) -> UpstreamRefused:
    try:
        said = _words(json.loads(body))
    except (ValueError, RecursionError):
        said = "no reason given"
    wait = headers.get("retry-after", "")
    return UpstreamRefused(said, status=status, retry_after=int(wait) if wait.isascii() and wait.isdigit() else None)


def _words(raw: Any) -> str:
    error = raw.get("error") if isinstance(raw, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message[:500] if isinstance(message, str) else "no reason given"


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    held = b""
    async for part in response.aiter_bytes():
        *lines, held = (held + part).split(b"\n")
        if len(held) > MAX_LINE:
            raise PeerMisbehaved("the endpoint sends a line without end")
        for line in lines:
            yield line
    if held:
        yield held


async def _bounded(response: httpx.Response) -> bytes:
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_LINE:
            break
    return body
