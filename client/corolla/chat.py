"""A conversation whose turns reuse what the nodes still hold of the turns before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from corolla.generation import MakeSpeculator, Tape, TextModel, TextStream
from corolla.session import Session
from corolla.values import ChatMessage, Generation, Piece
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import ContextExceeded, InvalidInput

MakeSession = Callable[[Tape, int], Awaitable[Session]]
"""Opens a session of so many positions."""
FinishSession = Callable[[Session], Awaitable[None]]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids two sequences share."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


class ChatSession:
    """Multi-turn chat. Only what is new since the last turn is sent through the nodes and paid for; where the new
    prompt diverges from what they hold, they forget from there on.

    `messages` is the conversation so far. Close it to settle and free the nodes' memory.
    """

    def __init__(
        self,
        model: TextModel,
        *,
        make: MakeSession,
        finish: FinishSession,
        make_speculator: MakeSpeculator,
        capacity: int,
        largest: int | None = None,
        system: str | None = None,
    ) -> None:
        """`capacity` positions are reserved at first, more when the conversation outgrows them, up to `largest`."""
        self.messages: list[ChatMessage] = []
        if system is not None:
            self.messages.append({"role": "system", "content": system})
        self._model = model
        self._make = make
        self._finish = finish
        self._make_speculator = make_speculator
        self._capacity = capacity
        self._largest = largest
        self._tape = Tape(model)
        self._session: Session | None = None
        self._busy = False

    def stream(self, text: str, params: SamplingParams, *, logprobs: bool = False) -> ChatStream:
        """Say something and stream the answer; both become part of `messages`, as far as the stream is read."""
        turn: list[ChatMessage] = [*self.messages, {"role": "user", "content": text}]
        stream = TextStream(
            self._model,
            turn,
            params,
            tape=self._tape,
            open_session=self._take,
            close_session=self._give_back,
            make_speculator=self._make_speculator,
            logprobs=logprobs,
        )
        return ChatStream(self, turn, stream)

    async def send(self, text: str, params: SamplingParams) -> Generation:
        """The whole answer at once."""
        stream = self.stream(text, params)
        async for _piece in stream:
            pass
        return stream.generation

    async def close(self) -> None:
        session, self._session = self._session, None
        self._tape.ids.clear()
        if session is not None:
            await self._finish(session)

    async def __aenter__(self) -> ChatSession:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _take(self, tape: Tape, prompt: Sequence[int], params: SamplingParams) -> tuple[Session, int]:
        if self._busy:
            raise InvalidInput("one turn of a conversation at a time")
        needed = len(prompt) + params.max_tokens
        if self._largest is not None and needed > self._largest:
            raise ContextExceeded("more than the model's context", limit=self._largest, needed=needed)
        session = self._session
        if session is not None and not session.affords(len(prompt) + params.max_tokens, at=self._shared(prompt)):
            await self.close()
            session = None
        if session is None:
            while self._capacity < needed:
                self._capacity *= 2
            if self._largest is not None:
                self._capacity = min(self._capacity, self._largest)
            session = self._session = await self._make(tape, self._capacity)
        self._busy = True
        return session, self._shared(prompt)

    async def _give_back(self, session: Session, reusable: bool) -> None:
        self._busy = False
        if not reusable:
            await self.close()

    def _shared(self, prompt: Sequence[int]) -> int:
        """How many leading positions of `prompt` the nodes hold, less one where that is all of it: the last position's
        output is needed anew."""
        held = min(self._session.position, self._tape.ends.reach) if self._session is not None else 0
        return min(common_prefix(self._tape.ids[:held], prompt), len(prompt) - 1)


class ChatStream:
    """A turn's pieces; `generation` after the last."""

    def __init__(self, chat: ChatSession, turn: list[ChatMessage], stream: TextStream) -> None:
        self._chat = chat
        self._turn = turn
        self._stream = stream
        self._said = ""

    @property
    def generation(self) -> Generation:
        return self._stream.generation

    def __aiter__(self) -> ChatStream:
        return self

    async def __anext__(self) -> Piece:
        piece = await anext(self._stream)
        self._said += piece.text
        self._chat.messages = [*self._turn, {"role": "assistant", "content": self._said}]
        return piece

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> ChatStream:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.aclose()
