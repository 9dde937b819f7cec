"""A gateway's backend that says what a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from corolla.gateway.backend import Ask, Delta, Route, Token
from corolla.values import FinishReason, Spent
from corolla_core.protocol.units import Nectar

MODEL = "scripted"
PRICE = 10**15 + 1
PROMPT_TOKENS = 5


@dataclass
class Script:
    """`texts` in turn, a token each, then `error` if there is one. `gate`, where there is one, is taken before each but
    the first."""

    texts: Sequence[str]
    finish: FinishReason = "eos"
    error: Exception | None = None
    gate: asyncio.Semaphore | None = None


@dataclass
class ScriptedBackend:
    script: Script = field(default_factory=lambda: Script(["Hello", ", world"]))
    asked: list[Ask] = field(default_factory=list)
    started: list[ScriptedRunning] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)

    @property
    def models(self) -> Sequence[str]:
        return [MODEL]

    def start(self, ask: Ask) -> ScriptedRunning:
        self.asked.append(ask)
        self.started.append(ScriptedRunning(self.script, ask))
        return self.started[-1]

    async def made(self, deltas: int) -> None:
        """Wait until the text that was started last has so many."""
        async with asyncio.timeout(5):
            while not self.started or self.started[-1].made < deltas:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def most(self, ask: Ask) -> Nectar:
        return Nectar((PROMPT_TOKENS + ask.params.max_tokens) * PRICE)

    async def lacking(self) -> list[str]:
        return self.lacks


class ScriptedRunning:
    def __init__(self, script: Script, ask: Ask) -> None:
        self._script = script
        self._ask = ask
        self.made = 0
        self.closed = False

    @property
    def route(self) -> Route:
        return Route("script")

    @property
    def spent(self) -> Spent:
        prompt = PROMPT_TOKENS if self.made else 0
        return Spent(prompt, 0, self.made, Nectar((prompt + self.made) * PRICE))

    @property
    def finish(self) -> FinishReason:
        return self._script.finish

    async def __aiter__(self) -> AsyncIterator[Delta]:
        for text in self._script.texts:
            if self.made and self._script.gate is not None:
                await self._script.gate.acquire()
            self.made += 1
            tokens = (Token(text, text.encode(), -0.5, (Token(text, text.encode(), -0.5),)),)
            yield Delta(text, tokens if self._ask.logprobs else ())
        if self._script.error is not None:
            raise self._script.error

    async def aclose(self) -> None:
        self.closed = True
