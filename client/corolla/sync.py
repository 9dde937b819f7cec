"""The synchronous client: the asynchronous one on an event loop in a background thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import uvloop

from corolla.chat import ChatSession
from corolla.client import AsyncClient
from corolla.funds import TrancheStatus
from corolla.many import AT_ONCE
from corolla.policy import Policy
from corolla.speculation import Speculation
from corolla.values import Balance, BeamText, ChatMessage, Generation, Piece
from corolla.wallet import WalletPolicy
from corolla_core.chain.network import Network
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import CorollaError, InvalidInput
from corolla_core.protocol.ids import Address, TrancheId
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import Nectar

T = TypeVar("T")


class _Loop:
    """An event loop on a daemon thread."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="corolla-client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` here while it runs there; an interrupt here cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        async def rest() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_asyncgens()

        self.run(rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Pieces(Protocol):
    @property
    def generation(self) -> Generation: ...

    async def __anext__(self) -> Piece: ...

    async def aclose(self) -> None: ...


class Stream:
    """An iterator of `Piece`s; `generation` after the last. Close it, or use it in `with`, to leave early."""

    def __init__(self, loop: _Loop, stream: _Pieces) -> None:
        self._loop = loop
        self._stream = stream

    @property
    def generation(self) -> Generation:
        return self._stream.generation

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        piece = self._loop.run(_next(self._stream))
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        self._loop.run(self._stream.aclose())

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Chat:
    """A conversation; see `ChatSession`."""

    def __init__(self, loop: _Loop, chat: ChatSession) -> None:
        self._loop = loop
        self._chat = chat

    @property
    def messages(self) -> list[ChatMessage]:
        return self._chat.messages

    def send(self, text: str, params: SamplingParams) -> Generation:
        return self._loop.run(self._chat.send(text, params))

    def stream(self, text: str, params: SamplingParams) -> Stream:
        return Stream(self._loop, self._chat.stream(text, params))

    def close(self) -> None:
        self._loop.run(self._chat.close())

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client:
    """`AsyncClient` for code without an event loop; takes the same arguments. Use it in `with`.

    with Client(network="devnet", model="smollm2-135m-instruct", signer=signer) as client:
        for piece in client.stream("Once upon a time", SamplingParams(max_tokens=50)):
            print(piece.text, end="")
    """

    def __init__(
        self,
        *,
        network: Network | str,
        signer: Signer,
        model: str | None = None,
        spending_limit: Nectar | None = None,
        max_price: Nectar | None = None,
        store: str | Path | None = None,
        home_dir: Path | None = None,
        policy: Policy | None = None,
        wallet_policy: WalletPolicy | None = None,
        speculation: Speculation | None = None,
        local_blocks: tuple[int, int] | None = None,
    ) -> None:
        self._client = AsyncClient(
            network=network,
            signer=signer,
            model=model,
            spending_limit=spending_limit,
            max_price=max_price,
            store=store,
            home_dir=home_dir,
            policy=policy,
            wallet_policy=wallet_policy,
            speculation=speculation,
            local_blocks=local_blocks,
        )
        self._loop: _Loop | None = None

    @property
    def account(self) -> Address:
        return self._client.account

    def __enter__(self) -> Client:
        self._loop = _Loop()
        try:
            self._loop.run(self._client.__aenter__())
        except BaseException:
            self._loop.stop()
            self._loop = None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        loop, self._loop = self._running, None
        try:
            loop.run(self._client.__aexit__(None, None, None))
        finally:
            loop.stop()

    def generate(
        self,
        prompt: str | Sequence[ChatMessage],
        params: SamplingParams,
        *,
        logprobs: bool = False,
        speculation: Speculation | None = None,
    ) -> Generation:
        return self._running.run(self._client.generate(prompt, params, logprobs=logprobs, speculation=speculation))

    def stream(
        self,
        prompt: str | Sequence[ChatMessage],
        params: SamplingParams,
        *,
        logprobs: bool = False,
        speculation: Speculation | None = None,
    ) -> Stream:
        pieces = self._client.stream(prompt, params, logprobs=logprobs, speculation=speculation)
        return Stream(self._running, pieces)

    def generate_many(
        self, prompts: Sequence[str | Sequence[ChatMessage]], params: SamplingParams, *, at_once: int = AT_ONCE
    ) -> list[Generation | CorollaError]:
        return self._running.run(self._client.generate_many(prompts, params, at_once=at_once))

    def beam_search(
        self, prompt: str | Sequence[ChatMessage], params: SamplingParams, *, num_beams: int = 4
    ) -> list[BeamText]:
        return self._running.run(self._client.beam_search(prompt, params, num_beams=num_beams))

    def session(self, *, system: str | None = None, speculation: Speculation | None = None) -> Chat:
        return Chat(self._running, self._client.session(system=system, speculation=speculation))

    def deposit(self, amount: Nectar) -> None:
        self._running.run(self._client.deposit(amount))

    def withdraw(self, amount: Nectar | None = None) -> Nectar:
        return self._running.run(self._client.withdraw(amount))

    def balance(self) -> Balance:
        return self._running.run(self._client.balance())

    def tranches(self) -> list[TrancheStatus]:
        return self._running.run(self._client.tranches())

    def reclaim(self) -> dict[TrancheId, Nectar]:
        return self._running.run(self._client.reclaim())

    @property
    def spent(self) -> Nectar:
        return self._client.spent

    @property
    def _running(self) -> _Loop:
        if self._loop is None:
            raise InvalidInput("the client is not connected: use it in `with`")
        return self._loop


async def _next(stream: _Pieces) -> Piece | None:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None
