"""Recomputing a span from the rows that went into it: the validator's half of an audit.

One teacher-forced prefill does it, since each position's input is known: 128 positions cost a small part of what it
took to decode them one by one, and the KV cache is rebuilt on the way. Legend: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corolla_core.model.block_range import BlockRange
from corolla_core.model.tensors import Buffer, from_wire, is_finite
from corolla_core.protocol.errors import InvalidInput, TensorRejected
from corolla_core.protocol.receipt import WireDtype
from corolla_core.protocol.reordering import Reordering

CHUNK = 256
"""Positions computed at once: bounds the activations, whose size grows with the chunk (attention: times the text)."""


def open_rows(rows: Sequence[Buffer], *, wire: str, hidden_size: int, batch: int = 1) -> Tensor:
    """The rows of consecutive positions as opened against a receipt, one buffer of wire bytes a position: [B, T, D] in
    the wire's dtype (int8: float32). Raises TensorRejected unless every row has its length and its numbers are finite.
    """
    if not rows:
        raise TensorRejected("no rows were opened")
    sent, meant = ((batch, 1, size) for size in (WireDtype(wire).width(hidden_size), hidden_size))
    return torch.cat([from_wire(wire, sent, row, expect_shape=meant) for row in rows], dim=1)


def replay(
    blocks: BlockRange,
    inputs_BTD: Tensor,
    reorderings: Sequence[Reordering] = (),
    *,
    entering: torch.dtype,
    chunk: int = CHUNK,
) -> Tensor:
    """What an honest node puts out for these inputs, from position 0 on: [B, T, D] in float32, on the CPU.

    `blocks` compute in float32 (see `numeric.load_reference`); `entering` is the dtype the node computes in, to which
    it rounds what it is given. Memory: the span's KV cache over T positions, and the activations of `chunk` positions.
    Raises TensorRejected when the inputs do not fit or are not finite, or when the model itself turns them into what is
    not: nothing can be concluded from such a session.
    """
    if blocks.dtype != torch.float32 or chunk < 1:
        raise InvalidInput("a span is replayed in float32, at least one position at a time")
    if inputs_BTD.ndim != 3 or inputs_BTD.shape[1] < 1 or inputs_BTD.shape[2] != blocks.hidden_size:
        raise TensorRejected(f"expected [B, T, {blocks.hidden_size}], not {list(inputs_BTD.shape)}")
    if not is_finite(inputs_BTD):
        raise TensorRejected("the opened inputs hold NaN or infinity")
    output_BTD = run(blocks, inputs_BTD.to(entering), reorderings, chunk=chunk)
    if not is_finite(output_BTD):
        raise TensorRejected("the model overflows on these inputs")
    return output_BTD


def run(
    blocks: BlockRange, inputs_BTD: Tensor, reorderings: Sequence[Reordering] = (), *, chunk: int = CHUNK
) -> Tensor:
    """The span over whole sequences in the blocks' own arithmetic, `chunk` positions at a time; float32, on the CPU.

    `reorderings`, at positions that grow, move the rows of the cache before their position is computed; rows that go in
    and come out stand as they are at their own position. What comes after the last position is of no account.
    """
    batch, length, _hidden = inputs_BTD.shape
    cache = blocks.new_cache(batch, length)
    parts: list[Tensor] = []
    moved = [each for each in reorderings if each.position < length and each.rows != tuple(range(batch))]
    for reordering in (*moved, None):
        end = length if reordering is None else reordering.position
        while cache.length < end:
            upto = min(cache.length + chunk, end)
            parts.append(blocks.forward(inputs_BTD[:, cache.length : upto], cache))
        if reordering is not None:
            cache.reorder(reordering.rows)
    return torch.cat([part.to(device="cpu", dtype=torch.float32) for part in parts], dim=1)
