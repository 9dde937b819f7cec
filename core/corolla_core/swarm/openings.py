"""Asking a node for the rows under a receipt it signed, and believing nothing of what it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from corolla_core.protocol.errors import InvalidInput, InvalidProof, PeerMisbehaved
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.opening import Side, check_all, check_row
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.reordering import Reordering, check_order
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.dial import Fallback
from corolla_core.swarm.inquiry import Inquiry
from corolla_core.swarm.messages import AnyMessage, AskOpening, Endpoint, Opening

BOTH = (Side.INPUTS, Side.OUTPUTS)


@dataclass(frozen=True, slots=True)
class OpenedRows:
    """Rows that are what was signed for: per side, the raw bytes of a `[positions, batch, hidden]` tensor; where all
    positions are shown, the reorderings too.

    A receipt binds the bytes, their dtype and the batch. `hidden` is what the node says: check it by the model.
    """

    receipt: Receipt
    positions: tuple[int, ...]
    hidden: int
    rows: Mapping[Side, memoryview]
    reorderings: tuple[Reordering, ...]


class Line(Protocol):
    """What an `Inquiry` is to who asks over it."""

    @property
    def peer(self) -> Address: ...

    async def ask(
        self, question: AnyMessage, answer: type[Opening], *, seconds: float
    ) -> tuple[Opening, memoryview]: ...


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
    """`ask_opening` over a connection of its own to the node at `endpoint`. Raises NetworkError besides."""
    async with await Inquiry.open(endpoint, identity=identity, fallback=fallback) as line:
        return await ask_opening(line, signed.receipt, positions=positions, sides=sides, seconds=seconds)


async def ask_opening(
    line: Line,
    receipt: Receipt,
    *,
    positions: Sequence[int] = (),
    sides: Sequence[Side] = BOTH,
    seconds: float = 20.0,
) -> OpenedRows:
    """The rows of these positions (none: all of them), proven to be those signed for.

    Raises InvalidInput for positions that the receipt has not, or no side; OpeningUnavailable where the node refuses,
    PeerMisbehaved where what it sends is something else, PeerTimeout or another NetworkError.
    """
    every = range(receipt.pos_start, receipt.pos_start + receipt.n_pos)
    if not sides or len(set(sides)) != len(sides) or any(position not in every for position in positions):
        raise InvalidInput("asks for what the receipt has not")
    wanted = [side for side in BOTH if side in sides]
    question = AskOpening(receipt.hash(), list(positions), Side.INPUTS in wanted, Side.OUTPUTS in wanted)
    opening, payload = await line.ask(question, Opening, seconds=seconds)
    try:
        return check_opening(receipt, opening, payload, positions=positions, sides=wanted)
    except InvalidInput as error:
        raise PeerMisbehaved(f"opens its receipt with something else: {error}", peer=line.peer) from None


def check_opening(
    receipt: Receipt, opening: Opening, payload: memoryview, *, positions: Sequence[int], sides: Sequence[Side]
) -> OpenedRows:
    """What an answer proves. `positions` and `sides` are what was asked for. Raises InvalidInput or InvalidProof."""
    shown = tuple(positions) or tuple(range(receipt.pos_start, receipt.pos_start + receipt.n_pos))
    shape = opening.tensor.shape
    if opening.receipt != receipt.hash() or len(shape) != 4 or shape[:2] != [len(sides), len(shown)]:
        raise InvalidProof("an answer to something else")
    if (opening.tensor.dtype, shape[2]) != (receipt.wire, receipt.batch):
        raise InvalidProof("other rows than were signed for")
    if len(opening.branches) != (len(sides) * len(shown) if positions else 0):
        raise InvalidProof("not a branch for every row")
    if not positions:
        check_order(receipt, opening.reorderings)
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
    reorderings = () if positions else tuple(opening.reorderings)
    return OpenedRows(receipt, shown, shape[3], found, reorderings)
