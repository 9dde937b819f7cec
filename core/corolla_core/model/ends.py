"""Both ends of a model, for a client."""

from __future__ import annotations

import torch

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.front import Front
from corolla_core.model.head import Head
from corolla_core.model.manifest import Manifest
from corolla_core.model.partial import Front as FrontPart
from corolla_core.model.partial import Head as HeadPart
from corolla_core.model.partial import base_of, load_part, tensors_needed


def load_ends(
    checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, manifest: Manifest | None = None
) -> tuple[Front, Head]:
    """What `load_front` and `load_head` give, with weights that both use (tied embeddings) read and held once."""
    config, names = checkpoint.config, checkpoint.tensor_names
    front_names, head_names = tensors_needed(FrontPart(), config, names), tensors_needed(HeadPart(), config, names)
    tensors = checkpoint.read(sorted({*front_names, *head_names}))
    front_tensors = {name: tensors[name] for name in front_names}
    head_tensors = {name: tensors[name] for name in head_names}
    if manifest is not None:
        manifest.check_front(checkpoint, front_tensors)
        manifest.check_head(checkpoint, head_tensors)
    front = Front(base_of(load_part(FrontPart(), config, front_tensors, dtype=dtype)))
    return front, Head(load_part(HeadPart(), config, head_tensors, dtype=dtype))
