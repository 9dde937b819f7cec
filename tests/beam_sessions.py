"""Sessions of several sequences as a node computes and signs them: step by step, rolled back and reordered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from signed_sessions import HIDDEN
from torch import Tensor

from corolla_core.model.block_range import BlockRange
from corolla_core.model.manifest import Manifest
from corolla_core.model.tensors import to_wire
from corolla_core.protocol.ids import SessionId, TrancheId, address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import NumericClass, WireDtype
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.transcript import Entry
from corolla_core.protocol.units import Nectar
from corolla_node.archive import Archive
from corolla_node.receipts import Issuer, Piece, ReceiptChain
from corolla_node.steps import Agreement


@dataclass(frozen=True, slots=True)
class Move:
    """One step: `tokens` positions from `pos`, what lies from there on being dropped, then the sequences reordered."""

    pos: int
    tokens: int = 1
    reorder: tuple[int, ...] | None = None


def beam_search(prompt: int, parents: Sequence[tuple[int, ...]]) -> list[Move]:
    """A prompt, and a token for each choice of surviving beams."""
    return [Move(0, prompt), *(Move(prompt + at, 1, rows) for at, rows in enumerate(parents))]


def beam_session(
    node: Signer,
    manifest: Manifest,
    span: Span,
    blocks: BlockRange,
    moves: Sequence[Move],
    *,
    batch: int,
    seed: int = 0,
    t_out: int = 1,
    obeys: bool = True,
    cheat: Callable[[Tensor], Tensor] | None = None,
    chunk_tokens: int = 8,
) -> list[Entry]:
    """What a node that computes with `blocks` shows of the session. One that does not obey signs for reorderings that
    it never did; `cheat` changes the outputs of each step."""
    random = torch.Generator().manual_seed(seed)
    length = max(move.pos + move.tokens for move in moves)
    name = sha256(f"{node.address} {seed} {batch}".encode()).digest()
    agreed = Agreement(
        session=SessionId(name[:16]),
        client=address(bytes(20)),
        upstream=None,
        span=span,
        batch=batch,
        max_tokens=length,
        hidden=HIDDEN,
        wire_dtype=WireDtype.FLOAT32,
        chunk_tokens=chunk_tokens,
        price=Price(Nectar(1)),
        tranche_id=TrancheId(bytes(32)),
        client_nonce=name,
    )
    issuer = Issuer(node, 1337, 0, manifest.root, NumericClass.FP32)
    entries: list[Entry] = []
    with TemporaryDirectory() as folder:
        archive = Archive(Path(folder), clock=lambda: 0.0)
        chain = ReceiptChain(issuer, agreed, manifest.weight_root(span), archive, clock=lambda: t_out / 1000)
        cache = blocks.new_cache(batch, length)
        chunks: list[list[Piece]] = []
        for move in moves:
            inputs = torch.randn(batch, move.tokens, HIDDEN, generator=random)
            if move.pos < cache.length:
                cache.crop(move.pos)
            if move.reorder is not None and obeys:
                cache.reorder(move.reorder)
            outputs = blocks.forward(inputs, cache)
            if cheat is not None:
                outputs = cheat(outputs)
            payloads = (to_wire(tensor)[2] for tensor in (inputs, outputs))
            chunks += chain.add(Piece(move.pos, move.tokens, *payloads, t_out, reorder=move.reorder))
        for chunk in [*chunks, *filter(None, [chain.rest()])]:
            signed = chain.sign(chunk)
            rows = archive.read(signed.receipt.receipt.hash(), signed.place)
            inputs_, outputs_ = (b"".join(side) for side in (rows.inputs, rows.outputs))
            entries.append(Entry(signed.receipt, inputs_, outputs_, rows.reorderings))
        archive.close()
    return entries


def resigned(entry: Entry, node: Signer, **changes: object) -> Entry:
    """The same rows under a receipt that says something else."""
    return replace(entry, signed=replace(entry.receipt, **changes).sign(node))  # type: ignore[arg-type]
