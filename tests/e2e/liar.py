"""A node that lies, as a program: `python liar.py CHEAT up MODEL …` is `corolla-node up MODEL …` but for the blocks it
computes with (skip, poison, nf4), what it signs over honest work (fork, mislink, falseweights), or for showing nobody
its rows (withhold). All else is the real node's. It also says that it is very fast, so that clients choose it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

import corolla_node.node as node_module
import corolla_node.server as server_module
import corolla_node.signatory as signatory_module
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.numeric import nf4
from corolla_core.protocol.errors import OpeningUnavailable
from corolla_core.protocol.ids import ZERO_HASH, Hash32
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import AskOpening
from corolla_node.bookkeeper import Bookkeeper
from corolla_node.cli.main import app
from corolla_node.loading import Loaded, load
from corolla_node.opener import Opener
from corolla_node.openings import Openings
from corolla_node.ports import Link
from corolla_node.receipts import Piece, ReceiptChain, Signed, Upstream
from corolla_node.timings import StepTimings

NOTHING = Hash32(sha256(b"no root of anything").digest())


class SkipsABlock:
    """Computes all of its blocks but the last, and is paid for it."""

    batches = False

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

    batches = False

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


def downgraded(checkpoint: Any, manifest: Any, span: Span, **kwargs: Any) -> Loaded:
    """Says float32, and holds its weights in four bits."""
    loaded = load(checkpoint, manifest, span, **kwargs)

    def cheap(tensor: Tensor) -> Tensor:
        return nf4(tensor).float() if tensor.is_floating_point() else tensor

    return replace(loaded, blocks=load_blocks(checkpoint, span, manifest=manifest, transform=cheap))


class Refuses(Openings):
    """Shows nobody the rows it signed for."""

    def ask(self, conn: Link, message: AskOpening) -> None:
        raise OpeningUnavailable("not today", receipt=message.receipt, reason="unknown")


class Deaf(Opener):
    """Nor does it answer the chain."""

    async def turn(self) -> None:
        return


def withholding(*args: Any, **kwargs: Any) -> Loaded:
    """Computes honestly and keeps it to itself."""
    server_module.Openings = Refuses
    node_module.Opener = Deaf
    return load(*args, **kwargs)


class Forks(ReceiptChain):
    """Shows validators another first receipt than the client and the next node got."""

    shown: dict[Hash32, SignedReceipt] = {}  # noqa: RUF012 — one process, one liar

    def sign(self, chunk: list[Piece], upstream: Upstream | None = None) -> Signed:
        signed = super().sign(chunk, upstream)
        receipt = signed.receipt.receipt
        if receipt.prev_receipt_hash == ZERO_HASH:
            self.shown[receipt.hash()] = replace(receipt, out_root=NOTHING).sign(self._issuer.signer)
        return signed


class Mislinks(ReceiptChain):
    """Names its upstream's receipt, and signs that it began from something else."""

    def sign(self, chunk: list[Piece], upstream: Upstream | None = None) -> Signed:
        signed = super().sign(chunk, upstream)
        return self._instead(signed, in_root=NOTHING) if signed.over is not None else signed

    def _instead(self, signed: Signed, **changes: Any) -> Signed:
        receipt = replace(signed.receipt.receipt, **changes)
        self._previous = receipt.hash()
        return replace(signed, receipt=receipt.sign(self._issuer.signer))


class ClaimsOtherWeights(Mislinks):
    """Says the right weight root when a session opens, and signs another one."""

    def sign(self, chunk: list[Piece], upstream: Upstream | None = None) -> Signed:
        return self._instead(ReceiptChain.sign(self, chunk, upstream), weight_root=NOTHING)


def computing(as_: Callable[[BlockRange], Any]) -> Callable[..., Loaded]:
    """Loads honestly, and computes as something else."""

    def loads(*args: Any, **kwargs: Any) -> Loaded:
        loaded = load(*args, **kwargs)
        return replace(loaded, blocks=as_(loaded.blocks))

    return loads


def main() -> None:
    cheat = sys.argv.pop(1)
    loads: dict[str, Callable[..., Loaded]] = {
        "skip": computing(SkipsABlock),
        "poison": computing(Poisons),
        "nf4": downgraded,
        "withhold": withholding,
    }
    chains = {"fork": Forks, "mislink": Mislinks, "falseweights": ClaimsOtherWeights}
    if cheat in loads:
        node_module.load = loads[cheat]
    else:
        signatory_module.ReceiptChain = chains[cheat]  # type: ignore[misc]
    keep = Bookkeeper.receipt
    Bookkeeper.receipt = lambda self, signed, place: keep(  # type: ignore[method-assign]
        self, Forks.shown.get(signed.receipt.hash(), signed), place
    )
    StepTimings.throughput = lambda self: 10_000.0  # type: ignore[method-assign]
    app()


if __name__ == "__main__":
    main()
