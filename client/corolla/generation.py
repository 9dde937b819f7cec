"""From a prompt to text: embed here, blocks over there, head and sampling here again, one token after another."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from corolla.drafter import MAX_DRAFT
from corolla.ends import Ends
from corolla.session import Session
from corolla.speculation import Speculator
from corolla.values import FinishReason, Generation, NodeUsage, Piece, RouteHop, Spent, Usage
from corolla_core.model.sampling import Constraint, Sampler, SamplingParams, StopWatcher
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.units import Nectar


class TextModel(Protocol):
    """The part of `LocalModel` that generating takes."""

    @property
    def eos_ids(self) -> frozenset[int]: ...

    @property
    def rolls_back(self) -> bool: ...

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...

    def prompt_ids(self, prompt: Any) -> list[int]: ...

    def ends(self, batch: int, max_tokens: int) -> Ends: ...

    def watcher(self, stop: Sequence[str]) -> StopWatcher: ...

    def constraint(self, params: SamplingParams) -> Constraint | None: ...


@dataclass(slots=True)
class Tape:
    """The token ids a session's caches hold, or are about to: what a replay needs, and what the next turn can reuse.
    `ends` are those of the session it was last given to."""

    model: TextModel
    ids: list[int] = field(default_factory=list)
    ends: Ends = field(init=False)

    def begin(self, max_tokens: int) -> None:
        self.ends = self.model.ends(1, max_tokens)

    async def inputs(self, start: int, stop: int) -> Tensor:
        """The inputs of positions `[start, stop)` once more."""
        hidden: Tensor = await self.model.run(self.ends.again, [self.ids[start:stop]], start)
        return hidden


@dataclass(frozen=True, slots=True)
class _Next:
    """`tokens` are certain, all but the last of them guessed and sent already. `hidden` are the inputs to send next, of
    the last one and of new guesses; None at the end."""

    tokens: tuple[int, ...]
    pieces: tuple[Piece, ...]
    finish: FinishReason | None
    hidden: Tensor | None


class _Writer:
    """Turns the swarm's outputs into tokens; lives on the compute thread.

    Every token is picked from the true logits after those before it, guessed or not; a guess only decides whether those
    of the next position are at hand. So the same text comes out, and of the random numbers each token takes its own.
    """

    def __init__(
        self,
        model: TextModel,
        ends: Ends,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        logprobs: bool,
        top_logprobs: int,
        speculator: Speculator | None = None,
        computed: int,
        constraint: Constraint | None,
    ) -> None:
        """`computed`: how many positions of the prompt the nodes are to compute."""
        self._model = model
        self._ends = ends
        self._params = params
        self._sampler = Sampler(params, prompt, constraint=constraint)
        self._watcher = model.watcher(params.stop)
        self._position = len(prompt)
        self._sent_at = len(prompt) - computed
        self._count = 0
        self._logprobs = logprobs
        self._top_logprobs = top_logprobs
        self._speculator = speculator
        self._computed = computed
        self._guessed: list[int] = []

    @property
    def left(self) -> int:
        """How many tokens may still be generated."""
        return self._params.max_tokens - self._count

    def write(self, output_BTD: Tensor, waited: float | None = None, most: int = 0) -> _Next:
        """The tokens these outputs make certain, and what to send next: with at most `most` guesses. `waited`: seconds
        that the outputs took, None where that was not measured."""
        began = time.perf_counter()
        logits_TV = self._ends.logits(output_BTD, self._sent_at, keep=1 + len(self._guessed))[0]
        tokens: list[int] = []
        pieces: list[Piece] = []
        finish: FinishReason | None = None
        for logits_V, guess in zip(logits_TV, [*self._guessed, None], strict=True):
            token, piece, finish = self._one(logits_V)
            tokens.append(token)
            pieces.append(piece)
            if finish or token != guess:
                break
        if finish:
            hidden = None
            self._learn(tokens, None)
        else:
            self._position += len(tokens)
            self._learn(tokens, None if waited is None else waited + time.perf_counter() - began)
            guesser, most = self._speculator, min(most, self.left - 1)
            self._guessed = guesser.guess(self._sampler, most=most) if guesser is not None and most > 0 else []
            self._sent_at = self._position - 1
            hidden = self._ends.embed([[token, *self._guessed]], self._sent_at)
        return _Next(tuple(tokens), tuple(pieces), finish, hidden)

    def _one(self, logits_V: Tensor) -> tuple[int, Piece, FinishReason | None]:
        token = self._sampler.pick(logits_V)
        if token in self._model.eos_ids:
            return token, Piece(self._watcher.flush(), ()), "eos"
        logprobs, top = self._measured(logits_V, token)
        text = self._watcher.push(token)
        self._count += 1
        if self._watcher.stopped is not None:
            return token, Piece(text, (token,), logprobs, top), "stop"
        if self._sampler.complete:
            return token, Piece(text + self._watcher.flush(), (token,), logprobs, top), "eos"
        if not self.left:
            return token, Piece(text + self._watcher.flush(), (token,), logprobs, top), "length"
        return token, Piece(text, (token,), logprobs, top), None

    def _measured(
        self, logits_V: Tensor, token: int
    ) -> tuple[tuple[float, ...], tuple[tuple[tuple[int, float], ...], ...]]:
        """The log probabilities of this token and of the likeliest, as the model has them before any sampling."""
        if not self._logprobs:
            return (), ()
        logprobs_V = torch.log_softmax(logits_V.float(), dim=-1)
        mine = (float(logprobs_V[token]),)
        if not self._top_logprobs:
            return mine, ()
        likeliest = torch.topk(logprobs_V, min(self._top_logprobs, logprobs_V.numel()))
        return mine, (tuple(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)),)

    def _learn(self, tokens: list[int], seconds: float | None) -> None:
        if self._speculator is None:
            return
        if self._computed:
            self._speculator.first(tokens[0], positions=self._computed, seconds=seconds)
            self._computed = 0
            return
        right = sum(token == guess for token, guess in zip(tokens, self._guessed, strict=False))
        self._speculator.learn(tokens, drafted=len(self._guessed), accepted=right, seconds=seconds)


OpenSession = Callable[[Tape, Sequence[int], SamplingParams], Awaitable[tuple[Session, int]]]
"""Gives the session to use for a prompt and how many of its positions the session holds already."""
CloseSession = Callable[[Session, bool], Awaitable[None]]
"""Takes the session back; the flag says whether all went well."""
MakeSpeculator = Callable[[Sequence[int], SamplingParams], Awaitable[Speculator | None]]
"""Gives the speculator for what follows a prompt, None where nothing is to be guessed."""


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
        make_speculator: MakeSpeculator,
        logprobs: bool = False,
        top_logprobs: int = 0,
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._params = params
        self._tape = tape
        self._open = open_session
        self._close = close_session
        self._make_speculator = make_speculator
        self._logprobs = logprobs
        self._top_logprobs = top_logprobs
        self._spent: Callable[[], Spent] = Spent
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

    @property
    def spent(self) -> Spent:
        """What it has taken so far; after an end of any kind, all that it took."""
        return self._spent()

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
        constraint = await self._model.run(self._model.constraint, self._params)
        speculator = await self._make_speculator(prompt, self._params)
        session, cached = await self._open(self._tape, prompt, self._params)
        self._session = session
        before, failovers = session.usage(), session.failovers
        pieces: list[Piece] = []
        times: list[float] = []

        def spent() -> Spent:
            cost = Nectar(sum(node.cost for node in _since(before, session.usage())))
            return Spent(len(prompt), cached, sum(len(piece.token_ids) for piece in pieces), cost)

        self._spent = spent
        reusable = False
        trace = session.trace and session.trace.begin("corolla.generate", prompt=len(prompt), cached=cached)
        try:
            self._tape.ids[cached:] = prompt[cached:]
            writer = _Writer(
                self._model,
                self._tape.ends,
                prompt,
                self._params,
                logprobs=self._logprobs,
                top_logprobs=self._top_logprobs,
                constraint=constraint,
                speculator=speculator,
                computed=len(prompt) - cached,
            )
            hidden = await self._model.run(self._tape.ends.embed, [prompt[cached:]], cached)
            sent = time.perf_counter()
            number: int | None = await session.send(hidden, pos=cached)
            if speculator is not None:
                await self._model.run(speculator.begin, prompt)
            while number is not None:
                output, waited = await _answer(session, number, sent)
                most = session.set_aside(writer.left - 1, MAX_DRAFT) if speculator is not None else 0
                step: _Next = await self._model.run(writer.write, output, waited, most)
                times += [time.monotonic()] * len(step.pieces)
                pieces += step.pieces
                number = None
                self._tape.ids += step.tokens[:-1]
                if step.hidden is not None:
                    # The nodes are at work on the next token while the caller does what it likes with this one.
                    self._tape.ids.append(step.tokens[-1])
                    sent = time.perf_counter()
                    keep = step.hidden.shape[1]
                    number = await session.send(step.hidden, keep=keep, pos=len(self._tape.ids) - 1)
                reusable = True
                for piece in step.pieces:
                    yield piece
                reusable = False
            await session.settle()
            reusable = True
            finish = step.finish
        finally:
            if trace is not None:
                trace.end(None if reusable else sys.exception(), tokens=len(times))
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
                drafted=speculator.drafted if speculator is not None else 0,
                accepted=speculator.accepted if speculator is not None else 0,
            ),
            route=session.route,
            logprobs=tuple(logprob for piece in pieces for logprob in piece.logprobs),
        )


async def _answer(session: Session, number: int, sent: float) -> tuple[Tensor, float | None]:
    """The outputs of a step, and how long after `sent` they came; None where that says nothing about the step: it was
    there before it was asked for, or a node fell away."""
    late, failovers = session.answered(number), session.failovers
    output = await session.answer(number)
    measured = not late and session.failovers == failovers
    return output, time.perf_counter() - sent if measured else None


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
