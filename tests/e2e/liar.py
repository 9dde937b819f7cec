"""A node that lies about its work, as a program: `python liar.py CHEAT up MODEL …` is `corolla-node up MODEL …` but for
the blocks it computes with. Everything else (payment, receipts, openings) is the real node's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import corolla_node.node as node_module
import corolla_node.server as server_module
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.numeric import nf4
from corolla_core.protocol.errors import OpeningUnavailable
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import AskOpening
from corolla_node.cli.main import app
from corolla_node.loading import load
from corolla_node.opener import Opener
from corolla_node.openings import Openings
from corolla_node.ports import Link


class SkipsABlock:
    """Computes all of its blocks but the last, and is paid for it."""

    def __init__(self, honest: BlockRange) -> None:
        self.span = honest.span
        self.hidden_size = honest.hidden_size
        self._honest = honest
        self._part = honest.sub(Span(honest.span.start, honest.span.end - 1)) if len(honest.span) > 1 else honest

    def new_cache(self, batch: int, max_tokens: int) -> Any:
        return self._part.new_cache(batch, max_tokens)

    def forward(self, hidden_BTD: Tensor, cache: Any) -> Tensor:
        return self._part.forward(hidden_BTD, cache)

    def forward_many(self, steps: Sequence[tuple[Tensor, Any]]) -> list[Tensor | Exception]:
        return [self.forward(*step) for step in steps]

    def sub(self, span: Span) -> SkipsABlock:
        return SkipsABlock(self._honest.sub(span))

    def kv_bytes(self, batch: int, tokens: int) -> int:
        return self._honest.kv_bytes(batch, tokens)


class Poisons:
    """Computes honestly, then pushes every output a little in a direction of its own."""

    def __init__(self, honest: BlockRange, push: Tensor | None = None) -> None:
        self.span = honest.span
        self.hidden_size = honest.hidden_size
        self._honest = honest
        generator = torch.Generator().manual_seed(7)
        self._push = torch.randn(honest.hidden_size, generator=generator) if push is None else push

    def new_cache(self, batch: int, max_tokens: int) -> Any:
        return self._honest.new_cache(batch, max_tokens)

    def forward(self, hidden_BTD: Tensor, cache: Any) -> Tensor:
        output = self._honest.forward(hidden_BTD, cache)
        return output + 0.01 * output.abs().mean() * self._push

    def forward_many(self, steps: Sequence[tuple[Tensor, Any]]) -> list[Tensor | Exception]:
        return [self.forward(*step) for step in steps]

    def sub(self, span: Span) -> Poisons:
        return Poisons(self._honest.sub(span), self._push)

    def kv_bytes(self, batch: int, tokens: int) -> int:
        return self._honest.kv_bytes(batch, tokens)


def downgraded(checkpoint: Any, manifest: Any, span: Span, **kwargs: Any) -> BlockRange:
    """Says float32, and holds its weights in four bits."""

    def cheap(tensor: Tensor) -> Tensor:
        return nf4(tensor).float() if tensor.is_floating_point() else tensor

    return load_blocks(checkpoint, span, manifest=manifest, transform=cheap)


class Refuses(Openings):
    """Shows nobody the rows it signed for."""

    def ask(self, conn: Link, message: AskOpening) -> None:
        raise OpeningUnavailable("not today", receipt=message.receipt, reason="unknown")


class Deaf(Opener):
    """Nor does it answer the chain."""

    async def turn(self) -> None:
        return


def withholding(*args: Any, **kwargs: Any) -> BlockRange:
    """Computes honestly and keeps it to itself."""
    server_module.Openings = Refuses
    node_module.Opener = Deaf
    return load(*args, **kwargs)


def main() -> None:
    cheat = sys.argv.pop(1)
    honest_load: Callable[..., BlockRange] = node_module.load
    loads: dict[str, Callable[..., Any]] = {
        "skip": lambda *a, **k: SkipsABlock(honest_load(*a, **k)),
        "poison": lambda *a, **k: Poisons(honest_load(*a, **k)),
        "nf4": downgraded,
        "withhold": withholding,
    }
    node_module.load = loads[cheat]
    app()


if __name__ == "__main__":
    main()
