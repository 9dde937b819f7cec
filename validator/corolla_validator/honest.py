"""The ways in which honest nodes of one class differ: none may ever be taken for a cheat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corolla_core.model.block_range import BlockRange
from corolla_core.model.replay import run


@dataclass(frozen=True, slots=True)
class Variant:
    """How a session is computed: positions a step, sequences a batch, threads."""

    name: str
    chunk: int
    batch: int = 1
    threads: int = 1

    def outputs(self, served: BlockRange, inputs_BTD: Tensor) -> Tensor:
        """What such a node puts out, [B, T, D] in float32, not yet rounded for the wire.

        Where B is below `batch`, shifted copies of the first row ride along, as other users' sessions would.
        """
        rows = inputs_BTD.shape[0]
        others = [inputs_BTD[:1].roll(shift, dims=1) for shift in range(1, 1 + self.batch - rows)]
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return run(served, torch.cat([inputs_BTD, *others]), chunk=self.chunk)[:rows]
        finally:
            torch.set_num_threads(before)


#: steps of one position as in decoding, chunks as in prefill, alone and in a batch, on one and two threads
VARIANTS = (
    Variant("steps of 16", 16),
    Variant("decoding", 1),
    Variant("steps of 16, 2 threads", 16, threads=2),
    Variant("steps of 5, batch of 2", 5, batch=2),
    Variant("steps of 16", 16),
    Variant("steps of 64, 2 threads", 64, threads=2),
    Variant("steps of 4, batch of 3", 4, batch=3),
)
