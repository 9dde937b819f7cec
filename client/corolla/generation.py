"""From a prompt to text: embed here, blocks over there, head and sampling here again, one token after another."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from corolla.session import Session
from corolla.values import FinishReason, Generation, NodeUsage, Piece, RouteHop, Usage
from corolla_core.model.sampling import Sampler, SamplingParams, StopWatcher
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.units import Nectar


class TextModel(Protocol):
    """The part of `LocalModel` that generating takes."""

    @property
    def eos_ids(self) -> frozenset[int]: ...

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...

    def prompt_ids(self, prompt: Any) -> list[int]: ...

    def embed(self, ids_BT: Sequence[Sequence[int]], position: int) -> Tensor: ...

    def logits(self, hidden_BTD: Tensor) -> Tensor: ...

    def watcher(self, stop: Sequence[str]) -> StopWatcher: ...


@dataclass(slots=True)
class Tape:
    """The token ids a session's caches hold, or are about to: what a replay needs, and what the next turn can reuse."""

    model: TextModel
    ids: list[int] = field(default_factory=list)

    async def inputs(self, start: int, stop: int) -> Tensor:
        """The inputs of positions `[start, stop)` once more."""
        hidden: Tensor = await self.model.run(self.model.embed, [self.ids[start:stop]], start)
        return hidden


@dataclass(frozen=True, slots=True)
class _Next:
    token: int
    piece: Piece
    finish: FinishReason | None
    hidden: Tensor | None


class _Writer:
    """Turns the swarm's outputs into tokens; lives on the compute thread."""

    def __init__(self, model: TextModel, prompt: Sequence[int], params: SamplingParams, *, logprobs: bool) -> None:
        self._model = model
        self._params = params
        self._sampler = Sampler(params, prompt)
        self._watcher = model.watcher(params.stop)
        self._position = len(prompt)
        self._count = 0
        self._logprobs = logprobs

    def write(self, output_BTD: Tensor) -> _Next:
        """The token after these outputs, and its embedding unless it is the last."""
        logits_V = self._model.logits(output_BTD)[0]
        token = self._sampler.pick(logits_V)
        if token in self._model.eos_ids:
            return _Next(token, Piece(self._watcher.flush(), ()), "eos", None)
        logprobs = (float(torch.log_softmax(logits_V.float(), dim=-1)[token]),) if self._logprobs else ()
        text = self._watcher.push(token)
        self._count += 1
        finish: FinishReason | None = None
        if self._watcher.stopped is not None:
            finish = "stop"
        elif self._count >= self._params.max_tokens:
            finish, text = "length", text + self._watcher.flush()
        hidden = None if finish else self._model.embed([[token]], self._position)
        self._position += 1
        return _Next(token, Piece(text, (token,), logprobs), finish, hidden)


OpenSession = Callable[[Tape, Sequence[int], SamplingParams], Awaitable[tuple[Session, int]]]
"""Gives the session to use for a prompt and how many of its positions the session holds already."""
CloseSession = Callable[[Session, bool], Awaitable[None]]
"""Takes the session back; the flag says whether all went well."""


class TextStream:
    """An async iterator of `Piece`s. After the last one, `generation` is the whole of it.

    Leaving the loop early ends the generation: `await aclose()`, or use it as an async context manager.
    """

    def __init__(
        self,
        model: TextModel,
        prompt: Any,
        params: SamplingParams,
        *,
        tape: Tape,
        open_session: OpenSession,
        close_session: CloseSession,
        logprobs: bool = False,
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._params = params
        self._tape = tape
        self._open = open_session
        self._close = close_session
        self._logprobs = logprobs
        self._generation: Generation | None = None
        self._session: Session | None = None
        self._pieces = self._generate()

    @property
    def generation(self) -> Generation:
        """Raises InvalidInput before the end of the stream."""
        if self._generation is None:
            raise InvalidInput("the stream has not been read to its end")
        return self._generation

    @property
    def route(self) -> tuple[RouteHop, ...]:
        """Who serves it at this moment; empty before the first piece."""
        return self._session.route if self._session is not None else ()

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self._pieces

    async def __anext__(self) -> Piece:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        await self._pieces.aclose()

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def read(self) -> Generation:
        """Read to the end."""
        async with self:
            async for _piece in self:
                pass
        return self.generation

    async def _generate(self) -> AsyncGenerator[Piece]:
        began = time.monotonic()
        prompt: list[int] = await self._model.run(self._model.prompt_ids, self._prompt)
        session, cached = await self._open(self._tape, prompt, self._params)
        self._session = session
        before, failovers = session.usage(), session.failovers
        pieces: list[Piece] = []
        times: list[float] = []
        reusable = False
        try:
            self._tape.ids[cached:] = prompt[cached:]
            writer = _Writer(self._model, prompt, self._params, logprobs=self._logprobs)
            hidden = await self._model.run(self._model.embed, [prompt[cached:]], cached)
            number: int | None = await session.send(hidden, pos=cached)
            while number is not None:
                output = await session.answer(number)
                step: _Next = await self._model.run(writer.write, output)
                times.append(time.monotonic())
                pieces.append(step.piece)
                number = None
                if step.hidden is not None:
                    # The nodes are at work on the next token while the caller does what it likes with this one.
                    self._tape.ids.append(step.token)
                    number = await session.send(step.hidden)
                reusable = True
                yield step.piece
                reusable = False
            await session.settle()
            reusable = True
            finish = step.finish
        finally:
            await self._close(session, reusable)
        per_node = _since(before, session.usage())
        token_ids = tuple(token for piece in pieces for token in piece.token_ids)
        self._generation = Generation(
            text="".join(piece.text for piece in pieces),
            token_ids=token_ids,
            finish_reason=finish or "length",
            usage=Usage(
                prompt_tokens=len(prompt),
                cached_tokens=cached,
                tokens=len(token_ids),
                seconds=times[-1] - began,
                first_token_seconds=times[0] - began,
                cost=Nectar(sum(node.cost for node in per_node)),
                per_node=per_node,
                failovers=session.failovers - failovers,
            ),
            route=session.route,
            logprobs=tuple(logprob for piece in pieces for logprob in piece.logprobs),
        )


def _since(before: Sequence[NodeUsage], now: Sequence[NodeUsage]) -> tuple[NodeUsage, ...]:
    """What was done between two readings of a session's usage."""
    known = {(node.account, node.span): node for node in before}
    found = []
    for node in now:
        old = known.get((node.account, node.span))
        if old is not None:
            node = replace(
                node,
                tokens=node.tokens - old.tokens,
                cost=Nectar(node.cost - old.cost),
                paid=Nectar(node.paid - old.paid),
            )
        if node.tokens or node.alive:
            found.append(node)
    return tuple(found)
