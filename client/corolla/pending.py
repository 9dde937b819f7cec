"""Steps that are not answered yet, and whether what comes back is an answer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from corolla_core.model.tensors import from_wire
from corolla_core.protocol.errors import PeerMisbehaved, TensorRejected
from corolla_core.protocol.ids import Address, SessionId
from corolla_core.swarm import messages
from corolla_core.swarm.messages import Result, Step


@dataclass(frozen=True, slots=True)
class Pending:
    """A step as it was sent, and will be again after a repair."""

    number: int
    pos: int
    tokens: int
    tensor: messages.Tensor
    payload: memoryview
    keep: int
    crop: bool
    reorder: list[int] | None

    def message(self, session: SessionId) -> Step:
        return Step(session, self.number, self.pos, self.tensor, self.keep, crop=self.crop, reorder=self.reorder)

    def read(self, result: Result, payload: memoryview, *, hidden: int, peer: Address) -> Tensor | None:
        """The rows asked for, None where none were. Raises PeerMisbehaved for anything but an answer to this step."""
        if not self.keep:
            return None
        if result.tensor is None or result.pos != self.pos + self.tokens - self.keep:
            raise PeerMisbehaved("answered with other positions than were asked for", peer=peer)
        if result.tensor.dtype != self.tensor.dtype:
            raise PeerMisbehaved(f"answered in {result.tensor.dtype}", peer=peer)
        expected = (self.tensor.shape[0], self.keep, hidden)
        try:
            return from_wire(result.tensor.dtype, result.tensor.shape, payload, expect_shape=expected)
        except TensorRejected as error:
            raise PeerMisbehaved(f"its output is unusable: {error}", peer=peer) from None
