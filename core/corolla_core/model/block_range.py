"""A span of consecutive blocks of any Hugging Face decoder-only causal LM, fed with hidden states.

Legend: B rows (beams or sequences of equal length), T tokens of this step, D hidden size.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from corolla_core.model.cache import SpanCache, layer_bytes
from corolla_core.model.checkpoint import Checkpoint, Progress
from corolla_core.model.lean import Lean
from corolla_core.model.manifest import Manifest
from corolla_core.model.partial import base_of, layer_list_name, load_part, tensors_needed
from corolla_core.model.ragged import Ragged
from corolla_core.model.ragged_trial import can_batch, can_continue
from corolla_core.protocol.errors import (
    InvalidInput,
    NotServed,
    PositionMismatch,
    TensorRejected,
    UnsupportedModel,
)
from corolla_core.protocol.span import Span

#: under which a module remembers which block it is in
_INDEX_NAMES = {"layer_idx", "layer_id"}


class BlockRange:
    """Blocks `span` of a model, ready to compute. What goes in and comes out is exactly what the model's own blocks
    exchange. `forward` is for one compute thread at a time; sessions differ by their caches only."""

    def __init__(
        self, base: Any, span: Span, *, layer_costs: tuple[tuple[int, int], ...] = (), batches: bool | None = None
    ) -> None:
        self.span = span
        self.config = base.config
        self._base = base
        self._forward = _bind_forward(base)
        parameter = next(base.parameters())
        self.dtype, self.device = parameter.dtype, parameter.device
        self.hidden_size = int(base.config.hidden_size)
        self._views: dict[Span, BlockRange] = {span: self}
        self._lean: Lean | None = None
        self._layer_costs = layer_costs or self._measure()
        self._batches = batches

    @property
    def num_blocks(self) -> int:
        """How many blocks this range holds."""
        return len(self.span)

    def new_cache(self, batch: int, max_tokens: int) -> SpanCache:
        """An empty cache for one session on exactly this range (memory is taken at its first forward)."""
        return SpanCache(self.config, self.span, batch=batch, max_tokens=max_tokens)

    def forward(self, hidden_BTD: Tensor, cache: SpanCache) -> Tensor:
        """The hidden states after the last block, [B, T, D] in this range's dtype, for positions `cache.length` on;
        the cache advances by T. Raises TensorRejected when the shape does not fit, PositionMismatch beyond
        `cache.max_tokens`, InvalidInput for another span's cache; the cache is untouched then."""
        return self._alone(self._checked(hidden_BTD, cache), cache)

    def forward_many(self, steps: Sequence[tuple[Tensor, SpanCache]]) -> list[Tensor | Exception]:
        """What `forward` gives for each step, every one with a cache of its own, computed in one pass where this
        architecture allows it. The exception that a step raises stands in its place, and harms no other step."""
        checked = [_outcome(self._checked, hidden_BTD, cache) for hidden_BTD, cache in steps]
        fit = [(hidden, cache) for hidden, (_, cache) in zip(checked, steps, strict=True) if isinstance(hidden, Tensor)]
        outputs = iter(self._together(fit))
        return [next(outputs) if isinstance(each, Tensor) else each for each in checked]

    @property
    def batches(self) -> bool:
        """Whether `forward_many` computes its steps in one pass, which a trial run decides when first asked."""
        if self._batches is None:
            self._batches = can_batch(self._eager, self._ragged.run, self.new_cache, like=self._base)
        return self._batches

    def capture(self) -> str | None:
        """Compute by a program captured from the model from now on, if a trial run finds that it does what the model
        does; making it takes seconds. Gives None then, or the reason why the model goes on by itself. Views that `sub`
        makes are not concerned."""
        if self.device.type != "cpu":
            return "it is made for CPUs"
        try:
            lean = Lean(view_of(self._base, 0, len(self.span)), self.new_cache(1, 1).entries.layers)
            if not can_continue(self._eager, lean.run, self.new_cache, like=self._base):
                return "its numbers are others"
        except Exception as error:  # whatever an architecture does that cannot be captured
            return f"{error!s:.200}" or type(error).__name__
        self._lean = lean
        return None

    def sub(self, span: Span) -> BlockRange:
        """A range over part of these blocks that shares their weights. Raises NotServed when it is not inside."""
        if span not in self.span:
            raise NotServed(f"holds blocks {self.span}, not {span}")
        if span not in self._views:
            first = span.start - self.span.start
            costs = self._layer_costs[first : first + len(span)]
            view = view_of(self._base, first, len(span))
            self._views[span] = BlockRange(view, span, layer_costs=costs, batches=self._batches)
        return self._views[span]

    def parameters(self) -> Iterator[Tensor]:
        """The weights; views give those they share."""
        return iter(self._base.parameters())

    @property
    def weight_bytes(self) -> int:
        """The bytes of memory the weights take."""
        return sum(held.nbytes for held in (*self._base.parameters(), *self._base.buffers()))

    def kv_bytes(self, batch: int, tokens: int) -> int:
        """The most bytes a cache of `batch` rows and `tokens` positions ever reserves."""
        return batch * sum(fixed + each * tokens for fixed, each in self._layer_costs)

    def _checked(self, hidden_BTD: Tensor, cache: SpanCache) -> Tensor:
        """The hidden states as they enter the blocks, or what `forward` raises."""
        if cache.span != self.span:
            raise InvalidInput(f"a cache of blocks {cache.span} does not fit blocks {self.span}")
        if hidden_BTD.ndim != 3 or hidden_BTD.shape[0] != cache.batch or hidden_BTD.shape[2] != self.hidden_size:
            raise TensorRejected(f"expected [{cache.batch}, T, {self.hidden_size}], not {list(hidden_BTD.shape)}")
        end = cache.length + hidden_BTD.shape[1]
        if end == cache.length or end > cache.max_tokens:
            raise PositionMismatch("the step does not fit the cache", expected=cache.max_tokens, offered=end)
        return hidden_BTD.to(device=self.device, dtype=self.dtype)

    def _alone(self, hidden: Tensor, cache: SpanCache) -> Tensor:
        if self._lean is not None and self._lean.takes([(hidden, cache)]):
            return self._lean.run([(hidden, cache)])[0]
        return self._eager(hidden, cache)

    def _eager(self, hidden: Tensor, cache: SpanCache) -> Tensor:
        start, end = cache.length, cache.length + hidden.shape[1]
        with torch.inference_mode():
            positions = torch.arange(start, end, device=self.device).unsqueeze(0)
            output = self._forward(hidden, positions, cache.entries)
        cache.length = end
        return output

    def _together(self, steps: list[tuple[Tensor, SpanCache]]) -> list[Tensor | Exception]:
        if len(steps) > 1 and self.batches:
            lean = self._lean if self._lean is not None and self._lean.takes(steps) else None
            try:
                return list((lean or self._ragged).run(steps))
            except Exception:
                pass  # the caches are as they were: each step finds out for itself whether it is at fault
        return [_outcome(self._alone, hidden, cache) for hidden, cache in steps]

    @cached_property
    def _ragged(self) -> Ragged:
        return Ragged(view_of(self._base, 0, len(self.span)))

    def _measure(self) -> tuple[tuple[int, int], ...]:
        """(bytes a row, bytes a row and position) of each block's cache, found by running one token and two: right for
        any kind of attention or state, and it brings the weights into memory."""
        one, two = (self._measured(tokens) for tokens in (1, 2))
        return tuple((2 * a - b, b - a) for a, b in zip(one, two, strict=True))

    def _measured(self, tokens: int) -> list[int]:
        cache = self.new_cache(1, tokens)
        self.forward(torch.zeros(1, tokens, self.hidden_size), cache)
        return [layer_bytes(layer) for layer in cache.entries.layers]


def _outcome(forward: Callable[[Tensor, SpanCache], Tensor], hidden: Tensor, cache: SpanCache) -> Tensor | Exception:
    try:
        return forward(hidden, cache)
    except Exception as error:
        return error


def load_blocks(
    checkpoint: Checkpoint,
    span: Span,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    manifest: Manifest | None = None,
    progress: Progress | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> BlockRange:
    """Read and load the blocks of `span`, and nothing else of the checkpoint.

    With a manifest every block is checked before it is used; `transform` (a rounding, a quantisation) then acts on
    each tensor as the checkpoint stores it. Raises InvalidSpan, WeightsCorrupt, WeightsMissing,
    UnsupportedModel.
    """
    model = read_blocks(checkpoint, span, dtype=dtype, manifest=manifest, progress=progress, transform=transform)
    return range_over(base_of(model), span, checkpoint.name, device=device)


def read_blocks(
    checkpoint: Checkpoint,
    span: Span,
    *,
    dtype: torch.dtype = torch.float32,
    manifest: Manifest | None = None,
    progress: Progress | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Any:
    """The causal LM with only the blocks of `span` in it, as `load_blocks` reads them. Raises what it does."""
    checkpoint.check_span(span)
    if not dtype.is_floating_point:
        raise InvalidInput(f"weights load as a floating-point type, not {dtype}")
    names = tensors_needed(span, checkpoint.config, checkpoint.tensor_names)
    tensors = checkpoint.read(names, progress=progress)
    if manifest is not None:
        manifest.check_blocks(checkpoint, span, tensors)
    if transform is not None:
        tensors = {name: transform(tensor) for name, tensor in tensors.items()}
    return load_part(span, checkpoint.config, tensors, dtype=dtype)


def range_over(base: Any, span: Span, name: str, *, device: str | torch.device = "cpu") -> BlockRange:
    """The blocks of `span` out of a decoder that has them under their original indices. Raises UnsupportedModel."""
    try:
        return BlockRange(view_of(base, span.start, len(span)).to(device), span)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        # the trial run inside: some architectures keep state across spans, or masks that need blocks of another kind
        raise UnsupportedModel(f"blocks {span} of {name} do not run by themselves: {error!s:.200}") from None


class _Blocks(nn.ModuleList):
    """A list of blocks that gives itself when sliced whole: transformers slices its list at every step."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self
        return super().__getitem__(index)


def view_of(base: Any, first: int, count: int) -> Any:
    """A copy of a decoder holding `count` of its blocks from `first` on, sharing all weights, with indices, caches
    and masks local to the copy. Every list of the config that has one item a block is sliced with them."""
    list_name = layer_list_name(base)
    layers = list(getattr(base, list_name))
    view = copy.copy(base)
    view.__dict__["_modules"] = dict(base._modules)
    view.config = config = copy.deepcopy(base.config)
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == len(layers):
            setattr(config, key, value[first : first + count])
    config.num_hidden_layers = count
    kept = [_shallow(layer, config, base.config) for layer in layers[first : first + count]]
    for local, layer in enumerate(kept):
        for module in layer.modules():
            for name in _INDEX_NAMES & vars(module).keys():
                vars(module)[name] = local
    view._modules[list_name] = _Blocks(kept)
    return view


def _shallow(module: nn.Module, config: Any, old_config: Any) -> nn.Module:
    """The same module tree as new objects over the same parameters, reading the view's config."""
    clone = copy.copy(module)
    clone.__dict__["_modules"] = {
        name: None if child is None else _shallow(child, config, old_config) for name, child in module._modules.items()
    }
    if getattr(module, "config", None) is old_config:
        clone.config = config
    return clone


def _bind_forward(base: Any) -> Callable[[Tensor, Tensor, Any], Tensor]:
    """The decoder's own forward without the decorators that only collect optional outputs."""
    forward = inspect.unwrap(type(base).forward)
    takes_positions = "position_ids" in inspect.signature(forward).parameters

    def run(hidden: Tensor, positions: Tensor, entries: Any) -> Tensor:
        extra = {"position_ids": positions} if takes_positions else {}
        output = forward(base, inputs_embeds=hidden, past_key_values=entries, use_cache=True, **extra)
        result: Tensor = output[0]
        return result

    return run
