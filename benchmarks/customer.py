"""Who keeps a node busy without a model: feeds hidden states, waits for what they become, pays by the chunk."""

from __future__ import annotations

import asyncio
import secrets
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from benchmarks.lone_node import CAP, DOMAIN, IDENTITY, PRICE, TREE, LoneNode, customer_key, tranche_of
from corolla_core.model.tensors import from_wire, to_wire
from corolla_core.protocol.errors import NetworkError, PeerMisbehaved
from corolla_core.protocol.errors import from_wire as error_from_wire
from corolla_core.protocol.ids import ZERO_HASH
from corolla_core.protocol.pricing import DEFAULT_CHUNK_TOKENS
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.voucher import Voucher
from corolla_core.swarm import messages
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.dial import dial


class Customer:
    """One connection and one session at a time. Every wait ends within `PATIENCE` seconds, by TimeoutError."""

    PATIENCE = 120.0

    def __init__(self, node: LoneNode, number: int) -> None:
        self._node = node
        self._number = number
        self._signer = customer_key(number)
        self._inbox: asyncio.Queue[tuple[messages.AnyMessage, Any] | NetworkError] = asyncio.Queue()
        self._connection: Connection | None = None
        self._session = b""
        self._step = self._position = self._owed = self._paid = 0
        self.receipted = 0
        """positions that the node signed for in this session"""

    async def __aenter__(self) -> Self:
        self._connection = await dial(self._node.endpoint, identity=self._signer, handler=self, timeout=30)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._conn.close()

    @property
    def _conn(self) -> Connection:
        assert self._connection is not None
        return self._connection

    @property
    def position(self) -> int:
        return self._position

    async def open(self, *, max_tokens: int, batch: int = 1) -> None:
        """A new session, which leaves any other to itself."""
        self._session = secrets.token_bytes(16)
        self._step = self._position = self._owed = self._paid = self.receipted = 0
        proof = TREE.proof(0)
        self._conn.send(
            messages.Open(
                session=self._session,
                model_root=self._node.model_root,
                start=self._node.span.start,
                end=self._node.span.end,
                batch=batch,
                max_tokens=max_tokens,
                wire_dtype="float32",
                chunk_tokens=DEFAULT_CHUNK_TOKENS,
                price=messages.amount(PRICE.per_token_block),
                tranche_id=tranche_of(self._number, self._session),
                cap=messages.amount(CAP),
                branch=messages.Branch(0, [(s.hash, messages.amount(s.sum)) for s in proof.siblings]),
                client_nonce=secrets.token_bytes(32),
            )
        )
        await self._expect(messages.Opened)

    async def step(self, hidden_BTD: Tensor) -> Tensor:
        """What the span makes of the next positions: all rows of the last one. Raises what the node refuses with."""
        batch, tokens, hidden = hidden_BTD.shape
        self._pay_for(batch * tokens)
        dtype, shape, payload = to_wire(hidden_BTD)
        self._step += 1
        tensor = messages.Tensor(dtype, list(shape))
        self._conn.send(messages.Step(self._session, self._step, self._position, tensor, keep=1), payload)
        result, rows = await self._expect(messages.Result)
        if (result.session, result.step, result.pos) != (self._session, self._step, self._position + tokens - 1):
            raise PeerMisbehaved(f"asked for step {self._step}, got {result.step}", peer=IDENTITY.address)
        self._position += tokens
        return from_wire(result.tensor.dtype, result.tensor.shape, rows, expect_shape=(batch, 1, hidden)).clone()

    async def close(self) -> None:
        """Returns when the node has let go of the session and signed for all of it."""
        self._conn.send(messages.Close(self._session))
        await self._expect(messages.Closed)

    async def info(self) -> messages.Info:
        self._conn.send(messages.Ask())
        info: messages.Info = (await self._expect(messages.Info))[0]
        return info

    def on_message(self, conn: Connection, message: messages.AnyMessage, payload: memoryview) -> None:
        if isinstance(message, messages.Receipt):
            receipt = message.signed.receipt
            self.receipted += receipt.n_pos if receipt.session_id == self._session else 0
        elif not isinstance(message, messages.Paid):
            self._inbox.put_nowait((message, payload))

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None:
        self._inbox.put_nowait(error or NetworkError("the node hung up"))

    def _pay_for(self, rows: int) -> None:
        """A voucher where the step would go beyond what is paid; it covers the next chunk with it."""
        self._owed += rows
        if self._owed > self._paid:
            self._paid = self._owed + DEFAULT_CHUNK_TOKENS - 1
            cumulative, tranche = PRICE.of(self._node.span, self._paid), tranche_of(self._number, self._session)
            signed = Voucher(tranche, IDENTITY.address, Nectar(cumulative), ZERO_HASH).sign(DOMAIN, self._signer)
            self._conn.send(messages.Pay(tranche, messages.amount(cumulative), ZERO_HASH, signed.signature))

    async def _expect(self, kind: type[Any]) -> tuple[Any, memoryview]:
        async with asyncio.timeout(self.PATIENCE):
            got = await self._inbox.get()
        if isinstance(got, NetworkError):
            raise got
        message, payload = got
        if isinstance(message, messages.Fault):
            raise error_from_wire(message.error)
        if not isinstance(message, kind):
            raise PeerMisbehaved(f"a {type(message).__name__} for a {kind.__name__}", peer=IDENTITY.address)
        return message, payload
