"""A question answered over the network while people look on: asked of a gateway, on the operator's account."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

import httpx
import msgspec
import structlog

from corolla_core.protocol.errors import InvalidInput, PeerMisbehaved
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import nectar_to_text

_log = structlog.get_logger(__name__)

ROUTE_HEADER = "x-corolla-route"
"""In which the gateway says where a text is made: `swarm; 0x…[0:10]; 0x…[10:30]`."""
MOST_TOKENS = 64
MOST_PROMPT = 500
"""characters"""
AT_ONCE = 2
_SECONDS = 60.0
_MOST_LINE = 65_536
_HOP = re.compile(r"(0x[0-9a-fA-F]{40})\[(\d{1,4}):(\d{1,4})\]")

PriceOf = Callable[[Address, Span], int | None]
"""What a node asks for one token through its blocks, in base units; None for one that is not known."""


@dataclass(frozen=True, slots=True)
class Told:
    """One event for the page."""

    name: Literal["route", "text", "cost", "failed", "done"]
    data: object


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)


class _Usage(msgspec.Struct):
    completion_tokens: int = 0
    prompt_tokens: int = 0
    cost: str | int | float | None = None


class _Problem(msgspec.Struct):
    message: str = ""


class _Chunk(msgspec.Struct):
    """What is used of a gateway's chunk; what else it has is passed over."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Problem | None = None


_decoder = msgspec.json.Decoder(_Chunk)


class Playground:
    """`transport` is for tests."""

    def __init__(
        self,
        gateway: str,
        key: str | None,
        model: str,
        *,
        price_of: PriceOf = lambda _account, _span: None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        base = gateway.rstrip("/").removesuffix("/v1")
        self._client = httpx.AsyncClient(base_url=base, headers=headers, timeout=_SECONDS, transport=transport)
        self._model = model
        self._price_of = price_of
        self._running = 0

    def begin(self) -> bool:
        """Whether there is a turn now; then call `end` when it is over."""
        if self._running >= AT_ONCE:
            return False
        self._running += 1
        return True

    def end(self) -> None:
        self._running -= 1

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, prompt: str) -> AsyncIterator[Told]:
        """The route, the text as it comes, what it cost, and `done`; or `failed`, with why, at any point."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt[:MOST_PROMPT]}],
            "max_tokens": MOST_TOKENS,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    yield Told("failed", f"the gateway says {answer.status_code} {answer.reason_phrase}")
                    return
                yield Told("route", self._route(answer.headers.get(ROUTE_HEADER, "")))
                async for data in _events(answer):
                    for told in _told(data):
                        yield told
            yield Told("done", None)
        except (httpx.HTTPError, PeerMisbehaved) as error:
            _log.warning("the gateway does not answer", error=str(error))
            yield Told("failed", "the gateway does not answer")

    def _route(self, text: str) -> dict[str, object]:
        """The hops, and what a token costs over them all where every price is known."""
        hops, price = [], 0
        unknown = False
        for account, start, end in _HOP.findall(text):
            try:
                span, node = Span(int(start), int(end)), address(account)
            except InvalidInput:
                continue
            asked = self._price_of(node, span)
            unknown |= asked is None
            price += asked or 0
            hops.append({"account": node, "start": span.start, "end": span.end})
        known = bool(hops) and not unknown
        return {
            "where": text.partition(";")[0].strip()[:80],
            "hops": hops,
            "price_per_token": nectar_to_text(price) if known else None,
        }


async def _events(answer: httpx.Response) -> AsyncIterator[str]:
    """The `data` of each event up to `[DONE]`. Raises PeerMisbehaved for a line that has no end."""
    rest = ""
    async for text in answer.aiter_text():
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            name, _colon, value = line.partition(":")
            if name == "data":
                if value.strip() == "[DONE]":
                    return
                yield value
        if len(rest) > _MOST_LINE:
            raise PeerMisbehaved("the gateway sent a line without an end")


def _told(data: str) -> list[Told]:
    try:
        chunk = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError) as error:
        raise PeerMisbehaved(f"the gateway's chunk does not parse: {error}") from None
    told = [Told("text", choice.delta.content) for choice in chunk.choices if choice.delta.content]
    if chunk.usage is not None:
        cost = None if chunk.usage.cost is None else str(chunk.usage.cost)
        told.append(Told("cost", {"tokens": chunk.usage.completion_tokens, "cost": cost}))
    if chunk.error is not None:
        told.append(Told("failed", chunk.error.message[:200]))
    return told
