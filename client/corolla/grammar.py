"""Texts that are kept to a JSON Schema, token by token: the masks are llguidance's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from corolla_core.model.sampling import Constraint
from corolla_core.protocol.errors import InvalidInput, UnsupportedModel

#: JSON as models write it, with no room for idle white space, in which a small model may lose itself
_WRITTEN: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
#: A schema is hostile input: llguidance refuses one that takes too much work, and need not say all it knows about it.
_LIMITS = LLParserLimits(verbose_errors=False)
MAX_SCHEMA_CHARS = 64 * 1024


class Grammar:
    """A model's tokens as llguidance knows them. Reading them takes half a second for 49,152: make it once."""

    def __init__(self, tokenizer: Any, *, vocab_size: int, eos_ids: Iterable[int]) -> None:
        """Raises UnsupportedModel for a tokenizer of another library than `tokenizers`, or without an end of text."""
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UnsupportedModel("this model's tokenizer cannot be kept to a schema")
        ends = sorted(eos_ids)
        if not ends:
            raise UnsupportedModel("a model whose texts have no end cannot be kept to a schema")
        self._vocab_size = vocab_size
        self._tokens = LLTokenizer(backend.to_str(), n_vocab=vocab_size, eos_token=ends)

    def constraint(self, json_schema: str) -> Constraint:
        """Raises InvalidInput for what is no JSON Schema, or uses of it what cannot be enforced."""
        if len(json_schema) > MAX_SCHEMA_CHARS:
            raise InvalidInput(f"a JSON schema has at most {MAX_SCHEMA_CHARS} characters")
        try:
            grammar = LLMatcher.grammar_from_json_schema(json_schema, overrides=_WRITTEN)
        except ValueError as error:
            raise InvalidInput(f"not a JSON schema: {error}") from None
        matcher = LLMatcher(self._tokens, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise InvalidInput(f"a JSON schema that cannot be kept to: {matcher.get_error().splitlines()[0]}")
        matching = _Matching(matcher, self._vocab_size)
        matching.allowed()  # or a schema that nothing fits would be found out when the prompt has been paid for
        return matching


class _Matching:
    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    @property
    def complete(self) -> bool:
        return self._matcher.is_stopped()

    def allowed(self) -> Tensor:
        """Raises InvalidInput where nothing fits the schema, or telling what does takes too much work."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed_V = torch.from_numpy(np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(bool))
        if self._matcher.is_error() or not allowed_V.any():
            raise InvalidInput("nothing fits the schema, or it is too complex to keep to")
        return allowed_V

    def push(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise InvalidInput("the schema became too complex to keep to")

    def fork(self) -> Constraint:
        return _Matching(self._matcher.deep_copy(), self._vocab_size)
