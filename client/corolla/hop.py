"""One node's place in one session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from corolla.account import NOTHING
from corolla.links import Link
from corolla.receipts import ReceiptChain, Witness
from corolla.router import Leg
from corolla.wallet import Purse, Wallet
from corolla_core.config.tracing import Traced
from corolla_core.protocol.errors import CorollaError, NetworkError, PaymentError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.voucher import SignedVoucher
from corolla_core.swarm.messages import AnyMessage, Endpoint, Opened, Pay, Rewired, amount


@dataclass(frozen=True, slots=True)
class Order:
    """Work ordered in one go: `reserved` of its cost came out of the session's reservation."""

    tokens: int
    cost: Nectar
    reserved: Nectar


@dataclass(slots=True, eq=False)
class Hop:
    """`upstream` and `downstream` are what the node has been told (None: the client).

    `fresh` until it has the history the others have. `ordered_step` is the last step whose work was ordered from it.
    """

    leg: Leg
    endpoint: Endpoint
    purse: Purse
    link: Link
    batch: int
    chunk_tokens: int
    upstream: Address | None
    downstream: Address | None
    sent: Witness
    received: Witness
    fresh: bool = True
    error: CorollaError | None = None
    chain: ReceiptChain | None = None
    ordered_step: int = 0
    tokens: int = 0
    cost: Nectar = NOTHING
    reply: asyncio.Future[Opened | Rewired] | None = field(default=None, repr=False)
    trace: Traced | None = field(default=None, repr=False)

    @property
    def account(self) -> Address:
        return self.leg.account

    @property
    def lost(self) -> bool:
        return self.error is not None

    @property
    def credit(self) -> Nectar:
        """How much the node lets stand unpaid: one chunk."""
        return self.leg.price.of(self.leg.span, self.batch * self.chunk_tokens)

    @property
    def must_pay(self) -> bool:
        """Whether the node would not begin what was ordered before it is paid."""
        return self.purse.account.unpaid > self.credit

    @property
    def should_pay(self) -> bool:
        """Whether it is time to pay, so that the next steps need not wait for it."""
        return 4 * self.purse.account.unpaid >= 3 * max(1, self.credit)

    def crop(self, position: int, *, end: int) -> None:
        """Rows in `[position, end)` are void."""
        self.sent.crop(position, end=end)
        self.received.crop(position, end=end)

    def order(self, tokens: int) -> Order:
        """Order `tokens` positions of every batch row. Raises SpendingLimitExceeded or VoucherOverCap."""
        cost = self.leg.price.of(self.leg.span, self.batch * tokens)
        order = Order(self.batch * tokens, cost, self.purse.order(cost))
        self.tokens += order.tokens
        self.cost = Nectar(self.cost + cost)
        return order

    def affords(self, tokens: int) -> bool:
        """Whether the leaf that pays this node could carry `tokens` positions more."""
        return self.purse.room >= self.leg.price.of(self.leg.span, self.batch * tokens)

    def cancel(self, order: Order) -> None:
        """Undo the last order, before anything was sent for it."""
        self.purse.cancel(order.cost, reserved=order.reserved)
        self.tokens -= order.tokens
        self.cost = Nectar(self.cost - order.cost)

    def send(self, message: AnyMessage, payload: memoryview | None = None) -> None:
        """Send, or note that the node is lost."""
        if self.lost:
            return
        try:
            self.link.send(message, payload)
        except NetworkError as error:
            self.fail(error)

    def fail(self, error: CorollaError) -> None:
        """The node is of no more use to this session."""
        if self.error is None:
            self.error = error
        self.interrupt(self.error)

    def end_trace(self) -> None:
        """The node's part in this session is over."""
        if self.trace is not None:
            self.trace.end(self.error, tokens=self.tokens)
            self.trace = None

    def interrupt(self, error: CorollaError) -> None:
        """Whoever waits for this node's answer waits in vain, though the node is good."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error)

    def answer(self, message: Opened | Rewired) -> None:
        if self.reply is not None and not self.reply.done():
            self.reply.set_result(message)

    async def ask(self, message: AnyMessage, *, seconds: float) -> Opened | Rewired:
        """Send and wait for the one answer. Raises what the node refuses with, TimeoutError, or NetworkError."""
        if self.error is not None:
            raise self.error
        self.reply = asyncio.get_running_loop().create_future()
        try:
            self.send(message)
            async with asyncio.timeout(seconds):
                return await self.reply
        finally:
            if self.reply.done() and not self.reply.cancelled():
                self.reply.exception()  # marks it retrieved
            self.reply = None


def pay_message(signed: SignedVoucher) -> Pay:
    voucher = signed.voucher
    return Pay(voucher.tranche_id, amount(voucher.cumulative), voucher.receipt_head, signed.signature)


async def pay(wallet: Wallet, hops: Sequence[Hop]) -> None:
    """Promise each node all that was ordered from it. Raises StoreError."""
    standing = [hop for hop in hops if not hop.lost and hop.purse.account.unpaid]
    if standing:
        for hop, signed in zip(standing, await wallet.sign([hop.purse for hop in standing]), strict=True):
            if signed is not None:
                hop.send(pay_message(signed))


def set_aside(hops: Sequence[Hop], needed: int, extra: int) -> int:
    """Reserve the money for `needed` more positions at every node, and for up to `extra` on top; returns how many of
    these are covered. Once reserved, no other session can spend it."""
    while extra:
        try:
            for hop in hops:
                hop.purse.set_aside(hop.leg.price.of(hop.leg.span, hop.batch * (needed + extra)))
            return extra
        except PaymentError:
            extra //= 2
    return 0


def order_step(hops: Sequence[Hop], number: int, tokens: int) -> None:
    """Order a step from every node it was not ordered from before, or from none of them.

    Raises SpendingLimitExceeded or VoucherOverCap.
    """
    orders: list[tuple[Hop, Order]] = []
    try:
        for hop in hops:
            if number > hop.ordered_step:
                orders.append((hop, hop.order(tokens)))
    except PaymentError:
        for hop, order in reversed(orders):
            hop.cancel(order)
        raise
    for hop, _order in orders:
        hop.ordered_step = number
