"""What a node's work costs. Prices are base units of Nectar per token and block, so spans compare directly."""

from __future__ import annotations

from dataclasses import dataclass

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar

DEFAULT_CHUNK_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Price:
    """`per_token_block` base units for one token (one sequence position of one batch row) through one block."""

    per_token_block: int

    def __post_init__(self) -> None:
        if type(self.per_token_block) is not int or not 0 <= self.per_token_block <= 2**96:
            raise InvalidInput(f"not a price: {self.per_token_block!r}")

    def of(self, span: Span, tokens: int) -> Nectar:
        """The cost of `tokens` through every block of `span`."""
        if tokens < 0:
            raise InvalidInput(f"negative token count: {tokens}")
        return Nectar(self.per_token_block * len(span) * tokens)
