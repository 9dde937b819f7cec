"""The client's first part of a model: from token ids to what the first block takes."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from corolla_core.model.block_range import view_of
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.partial import Front as FrontPart
from corolla_core.model.partial import base_of, load_part, tensors_needed
from corolla_core.protocol.errors import InvalidInput


class Front:
    """Embeddings, with all that the architecture does to them before its first block (scaling, norm, positions)."""

    def __init__(self, base: Any) -> None:
        self._base = view_of(base, 0, 0)
        self.vocab_size = int(base.config.vocab_size)
        self._takes_positions = "position_ids" in inspect.signature(type(base).forward).parameters
        self._embedding_alone = self._is_embedding_alone()

    def embed(self, ids_BT: Tensor, *, position: int) -> Tensor:
        """Hidden states [B, T, D] of tokens at positions `position` on. Raises InvalidInput for an id outside the
        vocabulary, or a position beyond those the model has learned."""
        if ids_BT.ndim != 2 or ids_BT.numel() == 0:
            raise InvalidInput(f"expected ids [B, T], not {list(ids_BT.shape)}")
        low, high = int(ids_BT.min()), int(ids_BT.max())
        if low < 0 or high >= self.vocab_size:
            raise InvalidInput(f"token ids {low} to {high} do not fit a vocabulary of {self.vocab_size}")
        with torch.inference_mode():
            if self._embedding_alone:
                hidden: Tensor = self._base.get_input_embeddings()(ids_BT)
                return hidden
            try:
                return self._through_decoder(ids_BT, position)
            except IndexError:
                end = position + ids_BT.shape[1]
                raise InvalidInput(f"position {end - 1} is beyond those the model has learned") from None

    def _through_decoder(self, ids_BT: Tensor, position: int) -> Tensor:
        extra: dict[str, Tensor] = {}
        if self._takes_positions:
            extra["position_ids"] = torch.arange(position, position + ids_BT.shape[1]).unsqueeze(0)
        hidden: Tensor = self._base(input_ids=ids_BT, use_cache=False, **extra)[0]
        return hidden

    def _is_embedding_alone(self) -> bool:
        """Whether the decoder does nothing around its embedding: then half a millisecond a token is saved by not
        going through it. Tried out, since an architecture may add positions, a norm or a scale."""
        probe = torch.arange(min(8, self.vocab_size)).unsqueeze(0)
        with torch.inference_mode():
            plain = self._base.get_input_embeddings()(probe)
            return all(torch.equal(plain, self._through_decoder(probe, position)) for position in (0, 5))


def load_front(
    checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, manifest: Manifest | None = None
) -> Front:
    """Read only what the front needs. Raises WeightsCorrupt, WeightsMissing, UnsupportedModel."""
    part = FrontPart()
    tensors = checkpoint.read(tensors_needed(part, checkpoint.config, checkpoint.tensor_names))
    if manifest is not None:
        manifest.check_front(checkpoint, tensors)
    return Front(base_of(load_part(part, checkpoint.config, tensors, dtype=dtype)))
