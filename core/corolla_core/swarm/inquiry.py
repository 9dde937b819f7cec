"""Questions to a peer, one at a time, over a connection of their own: what validators and tools ask of nodes."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TypeVar

from corolla_core.protocol.errors import NetworkError, PeerMisbehaved, PeerTimeout, PeerUnreachable, from_wire
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.connection import Connection, Policy
from corolla_core.swarm.dial import Fallback, dial
from corolla_core.swarm.messages import AnyMessage, Endpoint, Fault

M = TypeVar("M", bound=AnyMessage)


class Inquiry:
    """A connection to ask over; its `Handler` at the same time. Use `Inquiry.open`, and close it when done."""

    def __init__(self, peer: Address) -> None:
        self.peer = peer
        self._conn: Connection | None = None
        self._answer: asyncio.Future[tuple[AnyMessage, memoryview]] | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        endpoint: Endpoint,
        *,
        identity: Signer,
        fallback: Fallback | None = None,
        policy: Policy | None = None,
    ) -> Inquiry:
        """Raises PeerUnreachable, PeerTimeout or PeerMisbehaved."""
        self = cls(address(bytes(endpoint.account)))
        self._conn = await dial(endpoint, identity=identity, handler=self, fallback=fallback, policy=policy)
        return self

    @property
    def closed(self) -> bool:
        return self._conn is None or self._conn.closed

    async def ask(self, question: AnyMessage, answer: type[M], *, seconds: float) -> tuple[M, memoryview]:
        """The peer's answer and its payload.

        Raises what the peer refuses with, PeerTimeout when it says nothing for `seconds` (the connection is then of no
        more use: a late answer could be taken for the next one's), PeerMisbehaved when it answers something else, or
        the NetworkError the connection is lost with.
        """
        async with self._turn:
            if self._conn is None or self._conn.closed:
                raise PeerUnreachable("the connection is closed", peer=self.peer)
            self._answer = asyncio.get_running_loop().create_future()
            try:
                self._conn.send(question)
                async with asyncio.timeout(seconds):
                    message, payload = await self._answer
            except TimeoutError:
                late = PeerTimeout(f"does not answer {type(question).__name__} in {seconds:g} s", peer=self.peer)
                self._conn.drop(late)
                raise late from None
            finally:
                self._answer = None
        if isinstance(message, Fault):
            raise from_wire(message.error)
        if not isinstance(message, answer):
            raise PeerMisbehaved(f"answers {type(question).__name__} with {type(message).__name__}", peer=self.peer)
        return message, payload

    async def close(self) -> None:
        if self._conn is not None:
            await self._conn.close()

    async def __aenter__(self) -> Inquiry:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # What the connection calls

    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((message, payload))

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or PeerUnreachable("the connection was closed", peer=self.peer))
