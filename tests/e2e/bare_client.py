"""A client written straight from the messages, without our SDK: it can misbehave, and it checks that the protocol is
what the documents say and not only what our own client happens to do."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from typing import TypeVar

import torch

from corolla_core.chain.escrow import Escrow, RedeemItem, Tranche
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.model.tensors import to_wire
from corolla_core.protocol.errors import CorollaError, NetworkError, PeerTimeout, from_wire
from corolla_core.protocol.ids import ZERO_HASH, Address, ModelRoot, SessionId, address_bytes
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher, Voucher
from corolla_core.swarm import messages
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.dial import dial

M = TypeVar("M", bound=messages.Message)


@dataclass(frozen=True, slots=True)
class Deal:
    """A tranche with one leaf, and what is bought with it."""

    tranche: Tranche
    tree: SumTree
    payee: Address
    span: Span
    price: Price

    @property
    def leaf(self) -> Leaf:
        return self.tree.leaves[0]

    def cost(self, tokens: int) -> Nectar:
        return self.price.of(self.span, tokens)

    def voucher(
        self, cumulative: int, *, network: Network, signer: Signer, payee: Address | None = None
    ) -> SignedVoucher:
        voucher = Voucher(self.tranche.id, payee or self.payee, Nectar(cumulative), ZERO_HASH)
        return voucher.sign(network.domain, signer)

    def redemption(self, signed: SignedVoucher) -> RedeemItem:
        return RedeemItem(signed, self.leaf, self.tree.proof(0))


async def open_deal(
    network: Network, signer: Signer, payee: Address, *, span: Span, price: Price, cap: Nectar, seconds: int = 3600
) -> Deal:
    """Deposit and lock exactly `cap` for one payee."""
    tree = SumTree([Leaf(payee, cap)])
    async with await Chain.connect(network) as chain:
        escrow = Escrow(chain, TransactionSender(chain, signer))
        await escrow.deposit(cap)
        tranche = await escrow.open_tranche(tree.root, UnixTime(int(time.time()) + seconds))
    return Deal(tranche, tree, payee, span, price)


class BareClient:
    """One connection to one node. Every wait ends: with the message, the node's error raised, or PeerTimeout."""

    def __init__(self) -> None:
        self.faults: list[messages.Fault] = []
        self.lost = asyncio.Event()
        self._inbox: list[tuple[messages.Message, memoryview]] = []
        self._news = asyncio.Event()
        self._connection: Connection | None = None

    @classmethod
    async def connect(cls, endpoint: messages.Endpoint, identity: Signer) -> BareClient:
        self = cls()
        self._connection = await dial(endpoint, identity=identity, handler=self)
        return self

    @property
    def connection(self) -> Connection:
        assert self._connection is not None
        return self._connection

    def on_message(self, conn: Connection, message: messages.AnyMessage, payload: memoryview) -> None:
        self._inbox.append((message, payload))
        self._news.set()

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None:
        self.lost.set()
        self._news.set()

    async def expect(self, kind: type[M], *, within: float = 10.0) -> M:
        """The next message of a kind. A Fault that comes instead is raised as the error it carries."""
        end = time.monotonic() + within
        while True:
            for index, (message, _) in enumerate(self._inbox):
                if isinstance(message, kind):
                    del self._inbox[index]
                    return message
                if isinstance(message, messages.Fault):
                    del self._inbox[index]
                    raise from_wire(message.error)
            self._news.clear()
            try:
                async with asyncio.timeout(max(0.0, end - time.monotonic())):
                    await self._news.wait()
            except TimeoutError:
                raise PeerTimeout(f"no {kind.__name__} within {within} s") from None

    async def refused(self, kind: type[M], *, within: float = 10.0) -> CorollaError:
        """The node's error, where a message of `kind` would have been the answer to honest conduct."""
        try:
            message = await self.expect(kind, within=within)
        except CorollaError as error:
            return error
        raise AssertionError(f"the node answered {message}")

    async def open(self, deal: Deal, model_root: ModelRoot, *, max_tokens: int = 64, chunk: int = 8) -> SessionId:
        session = SessionId(secrets.token_bytes(16))
        proof = deal.tree.proof(0)
        self.connection.send(
            messages.Open(
                session=session,
                model_root=model_root,
                start=deal.span.start,
                end=deal.span.end,
                batch=1,
                max_tokens=max_tokens,
                wire_dtype="float32",
                chunk_tokens=chunk,
                price=messages.amount(deal.price.per_token_block),
                tranche_id=deal.tranche.id,
                cap=messages.amount(deal.leaf.cap),
                branch=messages.Branch(0, [(s.hash, messages.amount(s.sum)) for s in proof.siblings]),
                client_nonce=secrets.token_bytes(32),
            )
        )
        return session

    def step(self, session: SessionId, number: int, *, pos: int, hidden: int, tokens: int = 1) -> None:
        dtype, shape, payload = to_wire(torch.full((1, tokens, hidden), 0.01 * number))
        tensor = messages.Tensor(dtype, list(shape))
        self.connection.send(messages.Step(session, number, pos, tensor, keep=1), payload)

    def pay(self, signed: SignedVoucher) -> None:
        voucher = signed.voucher
        self.connection.send(
            messages.Pay(
                voucher.tranche_id, messages.amount(voucher.cumulative), voucher.receipt_head, signed.signature
            )
        )

    async def info(self) -> messages.Info:
        self.connection.send(messages.Ask())
        return await self.expect(messages.Info)

    async def close(self) -> None:
        await self.connection.close()


def endpoint(account: Address, *, host: str, port: int, cert_hash: bytes, peer_id: str = "") -> messages.Endpoint:
    return messages.Endpoint(address_bytes(account), host, port, cert_hash, peer_id)
