"""Loading part of a transformers model: the front, a span of blocks, or the head, from only the tensors it needs.

How it works, with no code for any one architecture: the model's own class is built on the meta device and what the
part does not need is replaced by identities; the parameters left say which tensors of the checkpoint are needed (by
transformers' own renaming rules, so fused experts and renamed heads resolve); only those are read, and handed to
`from_pretrained`, which converts and assigns them. This file is the one place that touches transformers' internals.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from corolla_core.protocol.errors import UnsupportedModel, WeightsCorrupt, WeightsMissing
from corolla_core.protocol.span import Span

LAYER_LISTS = ("layers", "h", "blocks")
#: what acts on the last block's output; belongs to the head
_AFTER_BLOCKS = (
    "project_out",
    "norm",
    "ln_f",
    "final_layer_norm",
    "final_layernorm",
    "norm_f",
    "ln_final",
    "embedding_norm",
    "layer_norm",
)
#: what acts on embeddings before the first block; belongs to the front
_ADDED_TO_EMBEDDINGS = ("wpe", "embed_positions")
_AFTER_EMBEDDINGS = (
    "word_embeddings_layernorm",
    "emb_dropout",
    "embed_dropout",
    "drop",
    "project_in",
    "layernorm_embedding",
)


@dataclass(frozen=True, slots=True)
class Front:
    """Embeddings and whatever acts on them before the first block."""


@dataclass(frozen=True, slots=True)
class Head:
    """The final norm and the LM head."""


Part = Front | Head | Span


class _Identity(nn.Module):
    def forward(self, hidden: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return hidden


class _Nothing(nn.Module):
    """Stands for position embeddings already added by the front."""

    def forward(self, *_args: Any, **_kwargs: Any) -> Tensor:
        return torch.zeros(())  # a scalar: added to hidden states of any dtype it changes neither value nor dtype


def base_of(model: nn.Module) -> Any:
    """The decoder inside a causal LM: the module that holds the list of blocks."""
    base: Any = model.base_model
    for inner in ("decoder", "language_model", "text_model", "model"):
        if not any(isinstance(getattr(base, name, None), nn.ModuleList) for name in LAYER_LISTS):
            base = getattr(base, inner, base)
    return base


def layer_list_name(base: nn.Module) -> str:
    for name in LAYER_LISTS:
        if isinstance(getattr(base, name, None), nn.ModuleList):
            return name
    raise UnsupportedModel(f"{type(base).__name__} has no list of blocks")


def load_part(part: Part, config: Any, tensors: dict[str, Tensor], *, dtype: torch.dtype) -> Any:
    """The causal LM with only `part` in it, in eval mode, its blocks under their original indices.

    Raises WeightsMissing when the part needs a tensor it was not given, WeightsCorrupt when one has the wrong shape.
    """
    model_class = _part_class(config, part)
    with _quiet():
        try:
            model, info = model_class.from_pretrained(
                None, config=copy.deepcopy(config), state_dict=tensors, dtype=dtype, output_loading_info=True
            )
        except (RuntimeError, ValueError) as error:
            raise WeightsCorrupt(f"the weights do not fit the config: {error!s:.400}") from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise WeightsMissing(f"the checkpoint lacks weights of {type(config).__name__}", names=missing[:32])
    return model.eval().requires_grad_(False)


def tensors_needed(part: Part, config: Any, names: Iterable[str]) -> list[str]:
    """Which of the checkpoint's tensors `part` needs, in the order given. Reads nothing."""
    needs = _Needs(part, config)
    return [name for name in names if needs.target(name) is not None]


def tensors_by_block(span: Span, config: Any, names: Iterable[str]) -> dict[int, list[str]]:
    """Which of the checkpoint's tensors each block of `span` needs. Reads nothing."""
    needs = _Needs(span, config)
    found: dict[int, list[str]] = {block: [] for block in span.blocks()}
    for name in names:
        block = needs.block(name)
        if block is not None:
            found[block].append(name)
    return found


class _Needs:
    def __init__(self, part: Part, config: Any) -> None:
        with torch.device("meta"), _quiet():
            model: Any = _part_class(config, part)(copy.deepcopy(config))
        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._prefix = model.base_model_prefix
        self._wanted = model.state_dict()

        base = base_of(model)
        path = next(path for path, module in model.named_modules() if module is base)
        self._blocks = f"{path}.{layer_list_name(base)}.".removeprefix(".")

    def target(self, name: str) -> str | None:
        """The parameter that a checkpoint's tensor goes to (or is fused into); None when the part has no such one."""
        if name in self._wanted:
            return name
        target, _ = rename_source_key(name, self._renamings, self._converters, self._prefix, self._wanted)
        return str(target) if target in self._wanted else None

    def block(self, name: str) -> int | None:
        """The block a checkpoint's tensor belongs to."""
        target = self.target(name)
        if target is None or not target.startswith(self._blocks):
            return None
        return int(target.removeprefix(self._blocks).split(".", 1)[0])


def _part_class(config: Any, part: Part) -> Any:
    """A subclass of the config's causal LM that keeps only `part`."""
    config_class = type(config)
    try:
        whole: Any = MODEL_FOR_CAUSAL_LM_MAPPING[config_class]
    except KeyError:
        raise UnsupportedModel(f"{config_class.__name__} has no causal LM in transformers") from None

    def init(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        whole.__init__(self, config, *args, **kwargs)
        _prune(self, part)

    members = {
        "__init__": init,
        # transformers applies its renaming rules (GPT-NeoX's embed_out) only to classes of its own modules
        "__module__": whole.__module__,
        "config_class": config_class,
        "_keys_to_ignore_on_load_unexpected": [r".*"],
    }
    return type(whole.__name__, (whole,), members)


def _prune(model: Any, part: Part) -> None:
    base = base_of(model)
    layers = getattr(base, layer_list_name(base))
    kept = part.blocks() if isinstance(part, Span) else range(0)
    for index in range(len(layers)):
        if index not in kept:
            layers[index] = _Identity()
    if not isinstance(part, Front):
        _drop_front(model, base, keep_embedding=isinstance(part, Head) and _is_tied(model))
    if not isinstance(part, Head):
        _drop_head(model, base)


def _is_tied(model: Any) -> bool:
    return bool(getattr(model, "all_tied_weights_keys", None))


def _drop_front(model: Any, base: Any, *, keep_embedding: bool) -> None:
    embedding = base.get_input_embeddings()
    for name, child in list(base.named_children()):
        if child is embedding:
            if not keep_embedding:
                setattr(base, name, _Identity())
        elif name in _ADDED_TO_EMBEDDINGS:
            setattr(base, name, _Nothing())
        elif name in _AFTER_EMBEDDINGS:
            setattr(base, name, _Identity())


def _drop_head(model: Any, base: Any) -> None:
    for name in _AFTER_BLOCKS:
        if isinstance(getattr(base, name, None), nn.Module):
            setattr(base, name, _Identity())
    head = model.get_output_embeddings()
    for name, child in list(model.named_children()):
        if child is head:
            setattr(model, name, _Identity())
    model.all_tied_weights_keys = {}


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports every tensor it was not given, and draws progress bars; both are ours to report."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
