"""From a model's name to loaded, checked blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from random import Random
from statistics import median
from time import perf_counter

import structlog
import torch

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.int8_blocks import int8_bytes, load_int8_blocks
from corolla_core.model.manifest import Manifest
from corolla_core.model.numeric import COMPUTE_DTYPES
from corolla_core.model.partial import tensors_needed
from corolla_core.model.smollm import NAME as SMOLLM
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement
from corolla_node.block_choice import choose_span
from corolla_node.engine import NUMERIC_CLASS
from corolla_node.placement import believed

_log = structlog.get_logger(__name__)
_MEMORY_SHARE = 0.6
"""How much of the free memory weights may take when the node chooses its blocks itself."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Blocks in memory, their throughput in thousandths of a token a second, and how long they took to load."""

    blocks: BlockRange
    throughput: int
    seconds: float


def open_model(ref: str) -> tuple[Checkpoint, Manifest]:
    """The checkpoint a user named, and the manifest beside it. Raises ModelError."""
    checkpoint = open_checkpoint(str(prepare_smollm()) if ref == SMOLLM else ref)
    return checkpoint, Manifest.beside(checkpoint)


def block_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """About what the weights of one block take in memory."""
    names = tensors_needed(Span(0, 1), checkpoint.config, checkpoint.tensor_names)
    shapes = [checkpoint.entry(name).shape for name in names]
    if NUMERIC_CLASS[dtype] is NumericClass.INT8:
        return sum(int8_bytes(shape) for shape in shapes)
    return sum(prod(shape) for shape in shapes) * COMPUTE_DTYPES[NUMERIC_CLASS[dtype]].itemsize


def blocks_that_fit(checkpoint: Checkpoint, *, dtype: str, memory: int) -> int:
    """How many of the model's blocks fit into `memory` free bytes beside everything else; at least 1."""
    return max(1, min(checkpoint.num_blocks, int(memory * _MEMORY_SHARE) // max(1, block_bytes(checkpoint, dtype))))


def choose_blocks(checkpoint: Checkpoint, swarm: list[Announcement], *, at_most: int, rng: Random) -> Span:
    """The span the swarm lacks most, of up to `at_most` blocks."""
    length = min(at_most, checkpoint.num_blocks)
    return choose_span(checkpoint.num_blocks, length, believed(swarm), rng=rng)


def load(
    checkpoint: Checkpoint,
    manifest: Manifest,
    span: Span,
    *,
    device: str,
    dtype: str,
    progress: Callable[[int, int], None] | None = None,
) -> Loaded:
    """Blocks checked against the manifest, on a device and in a dtype that `choose_engine` gave, and measured.

    Raises ModelError.
    """
    began = perf_counter()
    if NUMERIC_CLASS[dtype] is NumericClass.INT8:
        blocks = load_int8_blocks(checkpoint, span, manifest=manifest, progress=progress)
    else:
        kind = COMPUTE_DTYPES[NUMERIC_CLASS[dtype]]
        blocks = load_blocks(checkpoint, span, device=device, dtype=kind, manifest=manifest, progress=progress)
    _log.info("holds blocks", span=str(span), dtype=dtype, mebibytes=round(blocks.weight_bytes / 2**20, 1))
    if not blocks.batches:
        _log.info("this architecture computes sessions one by one", model=checkpoint.name)
    if reason := blocks.capture():
        _log.info("steps take the long way through the model's own code", model=checkpoint.name, reason=reason)
    return Loaded(blocks, measure_throughput(blocks), perf_counter() - began)


def measure_throughput(blocks: BlockRange, *, steps: int = 5) -> int:
    """Thousandths of a token a second: single positions through the whole span, the first two not counted."""
    cache = blocks.new_cache(1, steps + 2)
    hidden = torch.zeros(1, 1, blocks.hidden_size)
    seconds = []
    for _ in range(steps + 2):
        began = perf_counter()
        blocks.forward(hidden, cache)
        seconds.append(perf_counter() - began)
    return round(1000 / max(1e-6, median(seconds[2:])))
