"""Asking a node for the rows under a receipt it signed, and believing nothing of what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from corolla_core.protocol.errors import (
    CorollaError,
    InvalidInput,
    InvalidProof,
    NetworkError,
    PeerMisbehaved,
    PeerTimeout,
    PeerUnreachable,
    from_wire,
)
from corolla_core.protocol.ids import Hash32, address
from corolla_core.protocol.opening import Side, check_all, check_row
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.connection import Connection
from corolla_core.swarm.dial import Fallback, dial
from corolla_core.swarm.messages import AnyMessage, AskOpening, Endpoint, Fault, Opening

BOTH = (Side.INPUTS, Side.OUTPUTS)


@dataclass(frozen=True, slots=True)
class OpenedRows:
    """Rows that are what was signed for: per side, the raw bytes of a `[positions, batch, hidden]` tensor.

    A receipt binds the bytes. What they mean (`dtype`, `batch`, `hidden`) is what the node says: check it by the model.
    """

    receipt: Receipt
    positions: tuple[int, ...]
    dtype: str
    batch: int
    hidden: int
    rows: Mapping[Side, memoryview]


class Asker(Protocol):
    """A connection that messages can be sent over."""

    def send(self, message: AnyMessage) -> None: ...


async def fetch_opening(
    endpoint: Endpoint,
    signed: SignedReceipt,
    *,
    identity: Signer,
    positions: Sequence[int] = (),
    sides: Sequence[Side] = BOTH,
    seconds: float = 20.0,
    fallback: Fallback | None = None,
) -> OpenedRows:
    """The rows of these positions (none: all of them), from the node at `endpoint`, proven to be those signed for.

    Raises OpeningUnavailable where the node refuses, PeerMisbehaved where what it sends is something else, PeerTimeout
    or another NetworkError.
    """
    waiter = OpeningWaiter(signed.receipt, positions=positions, sides=sides)
    try:
        async with asyncio.timeout(seconds):
            link = await dial(endpoint, identity=identity, handler=waiter, fallback=fallback)
            try:
                return await waiter.ask(link)
            finally:
                await link.close()
    except TimeoutError:
        raise PeerTimeout("does not open its receipt", peer=address(bytes(endpoint.account))) from None


class OpeningWaiter:
    """The handler of a connection on which one opening is asked for."""

    def __init__(self, receipt: Receipt, *, positions: Sequence[int] = (), sides: Sequence[Side] = BOTH) -> None:
        """Raises InvalidInput for positions that the receipt has not, or no side."""
        every = range(receipt.pos_start, receipt.pos_start + receipt.n_pos)
        if not sides or len(set(sides)) != len(sides) or any(position not in every for position in positions):
            raise InvalidInput("asks for what the receipt has not")
        self._receipt = receipt
        self._positions = tuple(positions)
        self._sides = [side for side in BOTH if side in sides]
        self._answer: asyncio.Future[tuple[Opening, memoryview]] = asyncio.get_running_loop().create_future()

    async def ask(self, link: Asker) -> OpenedRows:
        """Raises what `fetch_opening` raises."""
        link.send(
            AskOpening(self._receipt.hash(), list(self._positions), Side.INPUTS in self._sides, self._wants_outputs)
        )
        opening, payload = await self._answer
        try:
            return check_opening(self._receipt, opening, payload, positions=self._positions, sides=self._sides)
        except (InvalidInput, InvalidProof) as error:
            raise PeerMisbehaved(f"opens its receipt with something else: {error}", peer=None) from None

    @property
    def _wants_outputs(self) -> bool:
        return Side.OUTPUTS in self._sides

    def on_message(self, conn: Connection, message: AnyMessage, payload: memoryview) -> None:
        if self._answer.done():
            return
        if isinstance(message, Opening):
            self._answer.set_result((message, payload))
        elif isinstance(message, Fault):
            self._answer.set_exception(from_wire(message.error))

    def on_lost(self, conn: Connection, error: NetworkError | None) -> None:
        if not self._answer.done():
            lost: CorollaError = error or PeerUnreachable("the connection was closed", peer=None)
            self._answer.set_exception(lost)
            self._answer.exception()  # marks it retrieved: nobody may be waiting


def check_opening(
    receipt: Receipt, opening: Opening, payload: memoryview, *, positions: Sequence[int], sides: Sequence[Side]
) -> OpenedRows:
    """What an answer proves. `positions` and `sides` are what was asked for. Raises InvalidInput or InvalidProof."""
    shown = tuple(positions) or tuple(range(receipt.pos_start, receipt.pos_start + receipt.n_pos))
    shape = opening.tensor.shape
    if opening.receipt != receipt.hash() or len(shape) != 4 or shape[:2] != [len(sides), len(shown)]:
        raise InvalidProof("an answer to something else")
    if len(opening.branches) != (len(sides) * len(shown) if positions else 0):
        raise InvalidProof("not a branch for every row")
    data, found = payload.cast("B"), {}
    per_side = data.nbytes // len(sides)
    size = per_side // len(shown)
    for number, side in enumerate(sides):
        part = data[number * per_side :][:per_side]
        rows = [part[at * size :][:size] for at in range(len(shown))]
        if positions:
            branches = opening.branches[number * len(shown) :]
            for position, row, siblings in zip(shown, rows, branches, strict=False):
                check_row(receipt, side, position, row, [Hash32(each) for each in siblings])
        else:
            check_all(receipt, side, rows)
        found[side] = part
    return OpenedRows(receipt, shown, opening.tensor.dtype, shape[2], shape[3], found)
