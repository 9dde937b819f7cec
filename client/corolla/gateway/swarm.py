"""Texts made by the swarm."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from corolla.gateway.backend import Ask, Delta, Route, Token
from corolla.gateway.swarm_price import SwarmPrice
from corolla.generation import TextStream
from corolla.values import Balance, FinishReason, Piece, Prompt, Spent
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement, NodeState

#: Seconds for which what was found lacking, or not, is taken to be so still: anybody may ask, and asking costs lookups.
LOOKED_LATELY = 2.0
LOOK_SECONDS = 5.0


class SwarmModel(Protocol):
    """The part of `LocalModel` the gateway needs. The tokenizer is safe to decode with from any thread."""

    name: str
    num_blocks: int
    tokenizer: Any


class SwarmClient(Protocol):
    """The part of `AsyncClient` the gateway needs."""

    @property
    def model(self) -> SwarmModel: ...

    def stream(
        self, prompt: Prompt, params: SamplingParams, *, logprobs: bool = False, top_logprobs: int = 0
    ) -> TextStream: ...

    @property
    def max_price(self) -> int | None: ...

    @property
    def max_waste(self) -> float: ...

    async def nodes(self) -> list[Announcement]: ...

    async def balance(self) -> Balance: ...


class SwarmBackend:
    """The one model of a connected client."""

    def __init__(self, client: SwarmClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._price = SwarmPrice(client, clock=clock)
        self._looking = asyncio.Lock()
        self._looked_at = -LOOKED_LATELY
        self._lacking: list[str] = []

    @property
    def models(self) -> Sequence[str]:
        return [self._client.model.name]

    def start(self, ask: Ask) -> SwarmRunning:
        stream = self._client.stream(ask.prompt, ask.params, logprobs=ask.logprobs, top_logprobs=ask.top_logprobs)
        return SwarmRunning(stream, self._client.model.tokenizer)

    async def most(self, ask: Ask) -> Nectar:
        return await self._price.most(ask)

    async def lacking(self) -> list[str]:
        async with self._looking:
            if self._clock() - self._looked_at >= LOOKED_LATELY:
                self._lacking = [
                    why for why in await asyncio.gather(self._chain_lacks(), self._nodes_lack()) if why is not None
                ]
                self._looked_at = self._clock()
            return self._lacking

    async def _chain_lacks(self) -> str | None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._client.balance()
        except (CorollaError, TimeoutError) as error:
            return f"the chain does not answer: {type(error).__name__}"
        return None

    async def _nodes_lack(self) -> str | None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                nodes = await self._client.nodes()
        except (CorollaError, TimeoutError) as error:
            return f"the directory of nodes does not answer: {type(error).__name__}"
        served = {
            block for node in nodes if node.state is NodeState.ONLINE for block in range(node.span.start, node.span.end)
        }
        missing = [block for block in range(self._client.model.num_blocks) if block not in served]
        return f"no node serves blocks {', '.join(map(str, missing))}" if missing else None


class SwarmRunning:
    """A text of the swarm's."""

    def __init__(self, stream: TextStream, tokenizer: Any) -> None:
        self._stream = stream
        self._tokenizer = tokenizer

    @property
    def route(self) -> Route:
        return Route("swarm", self._stream.route)

    @property
    def spent(self) -> Spent:
        return self._stream.spent

    @property
    def finish(self) -> FinishReason:
        return self._stream.generation.finish_reason

    async def __aiter__(self) -> AsyncIterator[Delta]:
        async for piece in self._stream:
            yield Delta(piece.text, tuple(self._tokens(piece)))

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _tokens(self, piece: Piece) -> list[Token]:
        tops = piece.top_logprobs or ((),) * len(piece.logprobs)
        return (
            [
                self._token(token, logprob, tuple(self._token(*likely) for likely in top))
                for token, logprob, top in zip(piece.token_ids, piece.logprobs, tops, strict=True)
            ]
            if piece.logprobs
            else []
        )

    def _token(self, token: int, logprob: float, top: tuple[Token, ...] = ()) -> Token:
        text = str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return Token(text, None if "\ufffd" in text else text.encode(), logprob, top)
