"""A linear layer whose matrix stays int8 in memory: a quarter of float32's bytes, and of what a decoded token reads.

Legend: R rows of activations, N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

KERNEL_ROWS = 8
"""Up to so many rows `torch._weight_int8pack_mm` is the fastest there is on a CPU; beyond, a float32 product of the
matrix widened for the moment is (ADR 45 has the figures)."""
_TILE = 2**19
"""How many numbers are widened at a time: what is then 2 MiB is multiplied while a cache still has it."""
_KERNEL_INPUTS, _KERNEL_OUTPUTS = 32, 16
"""Of what the kernel's sizes are multiples, on every CPU: it checks nothing, and reads beyond other matrices' ends."""
_rounding: ContextVar[bool] = ContextVar("rounding", default=True)


@contextmanager
def unrounded() -> Iterator[None]:
    """In here int8 layers do without the kernel, and so round nothing: for comparisons of float32's exactness."""
    token = _rounding.set(False)
    try:
        yield
    finally:
        _rounding.reset(token)


def quantise_int8(weight_NK: Tensor) -> tuple[Tensor, Tensor]:
    """The class's recipe: (steps as int8, [N, K]; scale of each row in float32, [N, 1]), with scale absmax / 127 and
    numbers rounded half to even."""
    wide = weight_NK.float()
    scale = wide.abs().amax(dim=-1, keepdim=True) / 127
    steps = torch.where(scale > 0, wide / scale, 0.0).round().clamp(-127, 127)
    return steps.to(torch.int8), scale


class Int8Linear(nn.Module):
    """Stands for an `nn.Linear` on a CPU. Activations come and go in float32; the kernel takes them in bfloat16."""

    steps: Tensor
    ones: Tensor

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        steps_NK, scale_N1 = quantise_int8(of.weight)
        self.register_buffer("steps", steps_NK.contiguous())
        # rounded to bfloat16, as the kernel would have them, scales would move all of a row: they are applied after it
        self.register_buffer("ones", torch.ones(len(steps_NK), dtype=torch.bfloat16))
        self.scale = nn.Parameter(scale_N1[:, 0].contiguous(), requires_grad=False)
        self.bias = of.bias
        outputs, inputs = steps_NK.shape
        self._fits_kernel = outputs % _KERNEL_OUTPUTS == 0 and inputs % _KERNEL_INPUTS == 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Any number of dimensions, as `nn.Linear` takes them."""
        inputs_RK = inputs.reshape(-1, inputs.shape[-1])
        if self._fits_kernel and len(inputs_RK) <= KERNEL_ROWS and _rounding.get():
            sums_RN = torch._weight_int8pack_mm(inputs_RK.to(torch.bfloat16), self.steps, self.ones)
            outputs_RN = torch.mul(sums_RN, self.scale)
        else:
            outputs_RN = self._widened(inputs_RK).mul_(self.scale)
        if self.bias is not None:
            outputs_RN = outputs_RN.add_(self.bias)
        return outputs_RN.reshape(*inputs.shape[:-1], -1)

    def _widened(self, inputs_RK: Tensor) -> Tensor:
        if self.steps.numel() <= _TILE:
            return linear(inputs_RK, self.steps.to(inputs_RK.dtype))
        tiles = torch.split(self.steps, max(1, _TILE // self.steps.shape[1]))
        return torch.cat([linear(inputs_RK, tile.to(inputs_RK.dtype)) for tile in tiles], dim=1)


def hold_as_int8(block: nn.Module) -> str | None:
    """Swap every `nn.Linear` inside for an `Int8Linear`. Gives the name of a matrix that cannot be held so, None where
    there is none: fused experts and transposed layers are no `nn.Linear`."""
    for module in block.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return next((name for name, parameter in block.named_parameters() if parameter.ndim > 1), None)
