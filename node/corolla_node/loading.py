"""From a model's name to loaded, checked blocks."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from random import Random
from statistics import median
from time import perf_counter

import psutil
import structlog
import torch

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.partial import tensors_needed
from corolla_core.model.smollm import NAME as SMOLLM
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_node.block_choice import Served, choose_span

_log = structlog.get_logger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NUMERIC_CLASS = {"float32": NumericClass.FP32, "bfloat16": NumericClass.BF16, "float16": NumericClass.FP16}
_MEMORY_SHARE = 0.6
"""How much of the free memory weights may take when the node chooses its blocks itself."""


def open_model(ref: str) -> tuple[Checkpoint, Manifest]:
    """The checkpoint a user named, and the manifest beside it. Raises ModelError."""
    checkpoint = open_checkpoint(str(prepare_smollm()) if ref == SMOLLM else ref)
    return checkpoint, Manifest.beside(checkpoint)


def blocks_that_fit(checkpoint: Checkpoint, *, dtype: torch.dtype, memory: int | None = None) -> int:
    """How many of the model's blocks this machine can hold beside everything else; at least 1."""
    names = tensors_needed(Span(0, 1), checkpoint.config, checkpoint.tensor_names)
    each = sum(prod(checkpoint.entry(name).shape) for name in names) * dtype.itemsize
    free = psutil.virtual_memory().available if memory is None else memory
    return max(1, min(checkpoint.num_blocks, int(free * _MEMORY_SHARE) // max(1, each)))


def choose_blocks(checkpoint: Checkpoint, swarm: list[Announcement], *, at_most: int, rng: Random) -> Span:
    """The span the swarm lacks most, of up to `at_most` blocks; nodes that are leaving do not count as serving."""
    staying = (NodeState.LOADING, NodeState.ONLINE)
    served = [Served(each.span, each.throughput) for each in swarm if each.state in staying]
    return choose_span(checkpoint.num_blocks, min(at_most, checkpoint.num_blocks), served, rng=rng)


def load(
    checkpoint: Checkpoint,
    manifest: Manifest,
    span: Span,
    *,
    device: str,
    dtype: str,
    progress: Callable[[int, int], None] | None = None,
) -> BlockRange:
    """Blocks checked against the manifest. Raises ModelError."""
    blocks = load_blocks(checkpoint, span, device=device, dtype=DTYPES[dtype], manifest=manifest, progress=progress)
    if not blocks.batches:
        _log.info("this architecture computes sessions one by one", model=checkpoint.name)
    if reason := blocks.capture():
        _log.info("steps take the long way through the model's own code", model=checkpoint.name, reason=reason)
    return blocks


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
