"""What the gateway asks of whatever generates, the swarm or another, and what it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from corolla.values import FinishReason, Prompt, RouteHop, Spent
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.units import Nectar


@dataclass(frozen=True, slots=True)
class Ask:
    """One text to be generated. With `logprobs`, tokens come with their log probability, and with the `top_logprobs`
    likeliest in their place."""

    model: str
    prompt: Prompt
    params: SamplingParams
    logprobs: bool = False
    top_logprobs: int = 0
    private: bool = False
    """whether the prompt must not leave a private swarm"""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as text and as bytes; None for part of a character."""

    text: str
    data: bytes | None
    logprob: float
    top: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that has become certain. `tokens` only where the log probabilities were asked for; they may run ahead of the
    text."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a text is made: the backend's name, and the nodes where it knows them."""

    backend: str
    hops: tuple[RouteHop, ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.backend, *(f"{hop.account}[{hop.span.start}:{hop.span.end}]" for hop in self.hops)])


class Running(Protocol):
    """One text being made. Nothing happens before it is read; reading raises a CorollaError where it fails.

    `route` is known from the first delta on, `finish` after the last one. `spent` is what it has taken so far; after
    `aclose`, or any other end, it is all that it took.
    """

    @property
    def route(self) -> Route: ...

    @property
    def spent(self) -> Spent: ...

    @property
    def finish(self) -> FinishReason: ...

    def __aiter__(self) -> AsyncIterator[Delta]: ...

    async def aclose(self) -> None: ...


class Backend(Protocol):
    """Something that generates texts."""

    @property
    def models(self) -> Sequence[str]:
        """The names of the models it has."""
        ...

    def start(self, ask: Ask) -> Running: ...

    async def most(self, ask: Ask) -> Nectar:
        """The most the text can cost. Raises what starting it would raise where that cannot be said."""
        ...

    async def lacking(self) -> list[str]:
        """What is not there that it needs, in words; nothing when it can work."""
        ...
