"""A small model on the client's own machine that guesses what the large one will say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from corolla.drafter import HOPELESS, MAX_DRAFT, Hope
from corolla_core.model.block_range import load_blocks
from corolla_core.model.cache import SpanCache, rolls_back
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.ends import load_ends
from corolla_core.model.sampling import Sampler
from corolla_core.protocol.errors import UnsupportedModel
from corolla_core.protocol.span import Span

_PRIOR = 0.7


class DraftModel:
    """A whole model in this process, shared by all texts that it drafts for."""

    def __init__(self, ref: str, *, tokenizer: Any) -> None:
        """Reads the checkpoint `ref`. `tokenizer` is that of the model to draft for. Raises ModelError, its
        UnsupportedModel where the vocabularies differ or this one's state cannot be rolled back."""
        checkpoint = open_checkpoint(ref)
        vocabulary = tokenizer.get_vocab()
        if checkpoint.tokenizer().get_vocab() != vocabulary:
            raise UnsupportedModel(f"{checkpoint.name} has another vocabulary, and cannot draft for this model")
        if not rolls_back(checkpoint.text_config):
            raise UnsupportedModel(f"{checkpoint.name} keeps a state that cannot be rolled back, and cannot draft")
        self.tokens = max(vocabulary.values()) + 1
        self.context = checkpoint.max_positions
        self.front, self.head = load_ends(checkpoint)
        self.blocks = load_blocks(checkpoint, Span(0, checkpoint.num_blocks))

    def drafter(self, positions: int) -> ModelDrafter:
        """A drafter for a text of at most so many positions."""
        return ModelDrafter(self, positions if self.context is None else min(positions, self.context))


class ModelDrafter:
    """Drafts token by token, with a cache that is rolled back to what came true."""

    def __init__(self, model: DraftModel, positions: int) -> None:
        self._model = model
        self._ids: list[int] = []
        self._held: list[int] = []
        """what the cache holds: certain tokens, then drafted ones"""
        self._certain = 0
        """how many of these were certain when last looked at"""
        self._cache: SpanCache = model.blocks.new_cache(1, positions)

    def take(self, tokens: Sequence[int]) -> None:
        """Computes all but the last of them that are not in the cache, a prompt while the network is at work on it."""
        self._ids += tokens
        if len(self._ids) <= self._cache.max_tokens:
            self._feed(len(self._ids) - 1)

    def hope(self) -> Hope:
        room = self._cache.max_tokens - len(self._ids) + 1
        return Hope(min(MAX_DRAFT, room), 0, _PRIOR) if room > 0 else HOPELESS

    def draft(self, count: int, sampler: Sampler) -> list[int]:
        drafted: list[int] = []
        ids = self._ids[-1:]
        for _ in range(count):
            hidden = self._compute(ids)
            logits_V = self._model.head.logits(hidden[:, -1:])[0, -1, : self._model.tokens]
            ids = [sampler.pick(logits_V)]
            drafted += ids
        return drafted

    def _feed(self, upto: int) -> None:
        """Make the cache hold the first `upto` tokens, and none besides."""
        same = self._certain
        while same < min(upto, len(self._held)) and self._held[same] == self._ids[same]:
            same += 1
        self._cache.crop(same)
        del self._held[same:]
        if same < upto:
            self._compute(self._ids[same:upto])
        self._certain = upto

    def _compute(self, ids: list[int]) -> torch.Tensor:
        position = self._cache.length
        hidden = self._model.blocks.forward(
            self._model.front.embed(torch.tensor([ids]), position=position).to(self._model.blocks.dtype), self._cache
        )
        self._held += ids
        return hidden
