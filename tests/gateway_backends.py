"""Backends that do as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field

from corolla.gateway.backend import Ask, Delta, Route
from corolla.values import FinishReason, Spent
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.units import Nectar

MODEL = "tiny"


@dataclass
class Scripted:
    """Says `words`, one every `pause` seconds, each at a cost of `price`, and then fails with `error` if it has one.

    With `together`, nothing is said before so many texts run at once."""

    words: Sequence[str] = ("one ", "two ", "three")
    error: CorollaError | None = None
    pause: float = 0.0
    price: int = 1
    names: Sequence[str] = (MODEL,)
    asked: list[Ask] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    lacks: Sequence[str] = ()
    together: int = 0
    met: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def models(self) -> Sequence[str]:
        return self.names

    def start(self, ask: Ask) -> ScriptedRunning:
        return ScriptedRunning(self, ask)

    async def lacking(self) -> list[str]:
        return list(self.lacks)

    async def most(self, ask: Ask) -> Nectar:
        return Nectar(self.price * ask.params.max_tokens)


class ScriptedRunning:
    def __init__(self, script: Scripted, ask: Ask) -> None:
        self._script = script
        self._ask = ask
        self._said = 0
        self._made = self._make()

    @property
    def route(self) -> Route:
        return Route("scripted")

    @property
    def spent(self) -> Spent:
        return Spent(3 if self._said else 0, 0, self._said, Nectar(self._said * self._script.price))

    @property
    def finish(self) -> FinishReason:
        return "eos"

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._made

    async def aclose(self) -> None:
        await self._made.aclose()

    async def _make(self) -> AsyncGenerator[Delta]:
        script = self._script
        script.asked.append(self._ask)
        script.running += 1
        script.most_running = max(script.most_running, script.running)
        try:
            if script.running >= script.together:
                script.met.set()
            await script.met.wait()
            for word in script.words:
                await asyncio.sleep(script.pause)
                self._said += 1
                yield Delta(word)
            if script.error is not None:
                raise script.error
        finally:
            script.running -= 1
