"""The client's last part of a model: from the last block's output to logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from corolla_core.model.block_range import view_of
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.partial import Head as HeadPart
from corolla_core.model.partial import base_of, load_part, tensors_needed
from corolla_core.protocol.errors import TensorRejected


class Head:
    """The final norm and the LM head, with the architecture's own scaling or capping of logits."""

    def __init__(self, model: Any) -> None:
        base = base_of(model)
        view = view_of(base, 0, 0)
        for name, child in list(model.named_modules()):
            if child is base:
                model.set_submodule(name, view)
        self._model = model
        self.hidden_size = int(base.config.hidden_size)
        self._dtype = next(model.parameters()).dtype

    def logits(self, hidden_BTD: Tensor) -> Tensor:
        """Logits [B, T, V] of the positions given. Raises TensorRejected."""
        if hidden_BTD.ndim != 3 or hidden_BTD.shape[2] != self.hidden_size:
            raise TensorRejected(f"expected [B, T, {self.hidden_size}], not {list(hidden_BTD.shape)}")
        with torch.inference_mode():
            logits: Tensor = self._model(inputs_embeds=hidden_BTD.to(self._dtype), use_cache=False).logits
        return logits


def load_head(checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, manifest: Manifest | None = None) -> Head:
    """Read only what the head needs. Raises WeightsCorrupt, WeightsMissing, UnsupportedModel."""
    part = HeadPart()
    tensors = checkpoint.read(tensors_needed(part, checkpoint.config, checkpoint.tensor_names))
    if manifest is not None:
        manifest.check_head(checkpoint, tensors)
    return Head(load_part(part, checkpoint.config, tensors, dtype=dtype))
