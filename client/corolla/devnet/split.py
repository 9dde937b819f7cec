"""How a model's blocks are shared out."""

from __future__ import annotations

import itertools

from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.span import Span


def split_evenly(blocks: int, parts: int) -> tuple[Span, ...]:
    """`parts` consecutive spans that cover `blocks`, their lengths differing by one at most.

    Raises ConfigError when there are more parts than blocks.
    """
    if not 1 <= parts <= blocks:
        raise ConfigError(f"{blocks} blocks cannot be shared among {parts} nodes")
    edges = [blocks * i // parts for i in range(parts + 1)]
    return tuple(Span(start, end) for start, end in itertools.pairwise(edges))
