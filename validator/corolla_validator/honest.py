"""The ways in which honest nodes of one class differ: none may ever be taken for a cheat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corolla_core.model.block_range import BlockRange
from corolla_core.model.replay import run


@dataclass(frozen=True, slots=True)
class Variant:
    """How a session is computed: positions a step, sequences a batch, threads, other sessions in the same pass."""

    name: str
    chunk: int
    batch: int = 1
    threads: int = 1
    beside: int = 0

    def outputs(self, served: BlockRange, inputs_BTD: Tensor) -> Tensor:
        """What such a node puts out, [B, T, D] in float32, not yet rounded for the wire.

        Where B is below `batch`, shifted copies of the first row ride along, as other users' sessions would.
        """
        rows = inputs_BTD.shape[0]
        others = [inputs_BTD[:1].roll(shift, dims=1) for shift in range(1, 1 + self.batch - rows)]
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            if self.beside:
                return self._in_company(served, inputs_BTD)
            return run(served, torch.cat([inputs_BTD, *others]), chunk=self.chunk)[:rows]
        finally:
            torch.set_num_threads(before)

    def _in_company(self, served: BlockRange, inputs_BTD: Tensor) -> Tensor:
        """Each step in one pass with steps of other lengths, over histories of other lengths."""
        rows, length, _hidden = inputs_BTD.shape
        own = served.new_cache(rows, length)
        guests = [(inputs_BTD[:1].roll(number, dims=1), served.new_cache(1, length)) for number in range(self.beside)]
        outputs = []
        for at in range(0, length, self.chunk):
            steps = [(inputs_BTD[:, at : at + self.chunk], own)]
            for number, (guest_1TD, cache) in enumerate(guests):
                step = guest_1TD[:, cache.length : cache.length + 1 + (at + number) % 3]
                if step.shape[1]:
                    steps.append((step, cache))
            output = served.forward_many(steps)[0]
            if isinstance(output, Exception):
                raise output
            outputs.append(output.to(device="cpu", dtype=torch.float32))
        return torch.cat(outputs, dim=1)


#: steps of one position as in decoding, chunks as in prefill, alone and in a batch, on one and two threads, and in one
#: pass with other sessions
VARIANTS = (
    Variant("steps of 16", 16),
    Variant("decoding", 1),
    Variant("steps of 16, 2 threads", 16, threads=2),
    Variant("steps of 5, batch of 2", 5, batch=2),
    Variant("steps of 16", 16),
    Variant("steps of 64, 2 threads", 64, threads=2),
    Variant("steps of 4, batch of 3", 4, batch=3),
    Variant("decoding beside 5 sessions", 1, beside=5),
    Variant("steps of 16 beside 15 sessions", 16, beside=15),
)
