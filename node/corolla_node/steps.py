"""What to do with a Step: pure checks and decisions, made when its turn in the session has come."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from corolla_core.protocol.errors import InvalidInput, OutOfCapacity, PositionMismatch, TensorRejected
from corolla_core.protocol.ids import Address, SessionId, TrancheId
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import WireDtype
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.messages import Step

REPLAY = 0
"""The step number of replayed history: computed and charged whenever it comes, and never answered from kept rows."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What client and node agreed on when the session was opened; it never changes."""

    session: SessionId
    client: Address
    upstream: Address | None
    span: Span
    batch: int
    max_tokens: int
    hidden: int
    wire_dtype: WireDtype
    chunk_tokens: int
    price: Price
    tranche_id: TrancheId
    client_nonce: bytes

    def cost(self, tokens: int) -> Nectar:
        """The price of `tokens` positions of every batch row."""
        return self.price.of(self.span, self.batch * tokens)

    @property
    def width(self) -> int:
        """How many numbers of the wire dtype a hidden state takes."""
        return self.wire_dtype.width(self.hidden)

    @property
    def credit(self) -> Nectar:
        """How much may stay unpaid: one chunk."""
        return self.cost(self.chunk_tokens)


class Action(Enum):
    COMPUTE = "compute"
    ANSWER = "answer"
    """from kept rows: this number was done before"""


def tokens_of(step: Step) -> int:
    """The positions a step covers, once `check_shape` has passed."""
    return step.tensor.shape[1]


def check_shape(step: Step, agreed: Agreement, *, max_step_tokens: int) -> None:
    """What can be said of a step before its turn. Raises TensorRejected, InvalidInput or OutOfCapacity."""
    shape = step.tensor.shape
    if step.tensor.dtype != agreed.wire_dtype:
        raise TensorRejected(f"this session speaks {agreed.wire_dtype}, not {step.tensor.dtype}")
    if len(shape) != 3 or shape[0] != agreed.batch or shape[2] != agreed.width:
        raise TensorRejected(f"expected [{agreed.batch}, tokens, {agreed.width}], got {list(shape)}")
    if shape[1] > max_step_tokens:
        raise TensorRejected(f"at most {max_step_tokens} positions a step, not {shape[1]}")
    if step.pos + shape[1] > agreed.max_tokens:
        raise OutOfCapacity("beyond the session's max_tokens", needed=step.pos + shape[1], free=agreed.max_tokens)
    if step.keep > shape[1]:
        raise InvalidInput(f"keep {step.keep} of {shape[1]} positions")
    if step.reorder is not None and (
        len(step.reorder) != agreed.batch or any(row >= agreed.batch for row in step.reorder)
    ):
        raise InvalidInput(f"reorder picks {agreed.batch} of {agreed.batch} rows")


def decide(step: Step, *, last_step: int, length: int) -> Action:
    """Compute it or answer it again. Raises PositionMismatch where it does not continue at `length`."""
    end = step.pos + tokens_of(step)
    if step.step != REPLAY and step.step <= last_step:
        if end > length:
            raise PositionMismatch("those rows were dropped since", expected=length, offered=end)
        return Action.ANSWER
    if step.pos != length and not (step.crop and step.pos < length):
        raise PositionMismatch("the step does not continue the session", expected=length, offered=step.pos)
    return Action.COMPUTE
