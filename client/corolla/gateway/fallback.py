"""One backend out of several: the first that fits a request makes its text, or the next if that fails before it says
anything. After the first token nothing is tried again: text would come twice."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from corolla.gateway.backend import Ask, Backend, Delta, Route, Running
from corolla.gateway.policy import Conditions, Observed, open_to, unfit
from corolla.values import FinishReason, Spent
from corolla_core.protocol.errors import (
    ChainError,
    ConfigError,
    CorollaError,
    InvalidInput,
    NetworkError,
    NoBackend,
    PrivacyUnmet,
)
from corolla_core.protocol.units import Nectar

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Option:
    """A backend under a name."""

    name: str
    backend: Backend


class Fallback:
    """`backends`, in order of preference."""

    def __init__(
        self, backends: Sequence[tuple[Conditions, Option]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        names = [option.name for _, option in backends]
        if not names or len(set(names)) != len(names):
            raise ConfigError("a policy has backends, each with a name of its own")
        self._backends = list(backends)
        self._clock = clock
        self._observed: dict[str, Observed] = {}

    @property
    def models(self) -> Sequence[str]:
        return list(dict.fromkeys(model for _, option in self._backends for model in option.backend.models))

    def start(self, ask: Ask) -> FallbackRunning:
        return FallbackRunning(self, ask)

    async def lacking(self) -> list[str]:
        """Nothing where any backend can work, else what each of them lacks."""
        found = []
        for _, option in self._backends:
            lacks = await option.backend.lacking()
            if not lacks:
                return []
            found += [f"{option.name}: {why}" for why in lacks]
        return found

    async def most(self, ask: Ask) -> Nectar:
        """The most a text can cost in all, if every backend that may be asked fails but the last. One that does not say
        what it costs now counts for nothing: it is not asked either, unless it comes back meanwhile."""
        total = 0
        for conditions, option in self.open_to(ask):
            if ask.model in option.backend.models:
                with suppress(NetworkError, ChainError):
                    cost = await option.backend.most(ask)
                    total += cost if conditions.most_cost is None or cost <= conditions.most_cost else 0
        return Nectar(total)

    def open_to(self, ask: Ask) -> list[tuple[Conditions, Option]]:
        return open_to(self._backends, private=ask.private)

    async def unfit(self, conditions: Conditions, option: Option, ask: Ask) -> str | None:
        """Why a backend is passed by; None where it is to be tried."""
        try:
            priced = conditions.most_cost is not None and ask.model in option.backend.models
            cost = await option.backend.most(ask) if priced else Nectar(0)
        except (NetworkError, ChainError) as error:
            return f"does not say what it costs: {error}"
        return unfit(
            conditions,
            models=option.backend.models,
            model=ask.model,
            cost=cost,
            observed=self._observed.get(option.name),
            now=self._clock(),
        )

    def saw(self, option: Option, wait: float) -> None:
        """A first token came after so many seconds."""
        known, now = self._observed.get(option.name), self._clock()
        self._observed[option.name] = Observed(wait, now) if known is None else known.then(wait, now)

    def now(self) -> float:
        return self._clock()


class FallbackRunning:
    """A text that any of the backends makes."""

    def __init__(self, fallback: Fallback, ask: Ask) -> None:
        self._fallback = fallback
        self._ask = ask
        self._running: Running | None = None
        self._name = ""
        self._before = Nectar(0)
        self._deltas = self._make()

    @property
    def route(self) -> Route:
        """Raises NoBackend before anything was tried."""
        return replace(self._current.route, backend=self._name)

    @property
    def spent(self) -> Spent:
        """Of the last attempt; its cost is that of all of them."""
        if self._running is None:
            return Spent()
        spent = self._running.spent
        return replace(spent, cost=Nectar(spent.cost + self._before))

    @property
    def finish(self) -> FinishReason:
        return self._current.finish

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self._deltas

    async def aclose(self) -> None:
        await self._deltas.aclose()

    async def _make(self) -> AsyncGenerator[Delta]:
        passed: list[str] = []
        failed: CorollaError | None = None
        for conditions, option in self._fallback.open_to(self._ask):
            if (why := await self._fallback.unfit(conditions, option, self._ask)) is not None:
                passed.append(f"{option.name} {why}")
                continue
            if self._running is not None:
                self._before = Nectar(self._before + self._running.spent.cost)
            running = self._running = option.backend.start(self._ask)
            self._name = option.name
            said, began = False, self._fallback.now()
            try:
                async for delta in running:
                    if not said:
                        said = True
                        self._fallback.saw(option, self._fallback.now() - began)
                    yield delta
                return
            except CorollaError as error:
                # What is wrong with the request itself is so everywhere.
                if said or isinstance(error, InvalidInput):
                    raise
                failed = error
                _log.warning("a backend failed before the first token", backend=option.name, error=str(error))
            finally:
                await running.aclose()
        if failed is not None:
            raise failed
        reasons = f": {'; '.join(passed)}" if passed else ""
        if self._ask.private:
            raise PrivacyUnmet(f"no private swarm takes this private request{reasons}")
        raise NoBackend(f"no backend takes this request{reasons}")

    @property
    def _current(self) -> Running:
        if self._running is None:
            raise NoBackend("nothing was tried yet")
        return self._running
