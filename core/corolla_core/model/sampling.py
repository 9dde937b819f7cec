"""From logits to the next token, and from tokens to text that may be shown."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from corolla_core.model.tensors import is_finite
from corolla_core.protocol.errors import InvalidInput, TensorRejected

MAX_STOPS = 16
MAX_STOP_CHARS = 256
_UNFINISHED = "\ufffd"
#: a character of UTF-8 is at most 4 bytes, so more tokens than this without a whole one are not text
_MAX_HELD_TOKENS = 16


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. `temperature` 0 is greedy; `top_k` 0 and `top_p` 1 are off. With a `seed` the same logits
    give the same tokens. Generation ends before any of the `stop` strings. `presence_penalty` is taken once, and
    `frequency_penalty` each time, from the logit of a token that the text (not the prompt) has already, as OpenAI's API
    defines them. `json_schema`, a JSON Schema as JSON text, allows only what it describes. Raises InvalidInput."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    json_schema: str | None = None

    def __post_init__(self) -> None:
        _require(_whole(self.max_tokens) and self.max_tokens >= 1, "max_tokens is a whole number from 1")
        _require(_number(self.temperature) and 0 <= self.temperature <= 100, "temperature is from 0 to 100")
        _require(_number(self.top_p) and 0 < self.top_p <= 1, "top_p is above 0 and at most 1")
        _require(_whole(self.top_k) and self.top_k >= 0, "top_k is a whole number from 0")
        _require(_number(self.repetition_penalty) and 0 < self.repetition_penalty <= 100, "repetition_penalty is > 0")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _require(_number(value) and -2 <= value <= 2, f"{name} is from -2 to 2")
        _require(self.json_schema is None or isinstance(self.json_schema, str), "json_schema is JSON text")
        _require(self.seed is None or (_whole(self.seed) and 0 <= self.seed < 2**63), "seed is from 0 to 2**63 - 1")
        _require(isinstance(self.stop, tuple) and len(self.stop) <= MAX_STOPS, f"stop is up to {MAX_STOPS} strings")
        for text in self.stop:
            _require(isinstance(text, str) and 0 < len(text) <= MAX_STOP_CHARS, "a stop string has 1 to 256 characters")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class Constraint(Protocol):
    """What may follow in one sequence."""

    def allowed(self) -> Tensor:
        """Which tokens may be next: bool `[V]`."""
        ...

    def push(self, token: int) -> None: ...

    @property
    def complete(self) -> bool:
        """Whether nothing more may follow."""
        ...

    def fork(self) -> Constraint: ...


class Sampler:
    """Chooses one sequence's tokens in turn, by transformers' own logits processors in `generate`'s order, among those
    that `constraint` allows."""

    def __init__(
        self, params: SamplingParams, prompt_ids: Sequence[int], *, constraint: Constraint | None = None
    ) -> None:
        self.params = params
        self._prompt = len(prompt_ids)
        self._constraint = constraint
        self._ids = torch.empty(1, len(prompt_ids) + params.max_tokens, dtype=torch.int64)
        self._ids[0, : len(prompt_ids)] = torch.tensor(prompt_ids, dtype=torch.int64)
        self._count = len(prompt_ids)
        self._processors = _processors(params)
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    @property
    def complete(self) -> bool:
        """Whether the constraint lets nothing more follow."""
        return self._constraint is not None and self._constraint.complete

    def pick(self, logits_V: Tensor) -> int:
        """The next token's id, remembered for the repetition penalty. Raises TensorRejected for logits that are not
        one row of finite numbers."""
        if logits_V.ndim != 1 or logits_V.numel() == 0 or not is_finite(logits_V):
            raise TensorRejected(f"expected one row of finite logits, not {list(logits_V.shape)}")
        with torch.inference_mode():
            scores = logits_V.to(device="cpu", dtype=torch.float32).unsqueeze(0)
            if self.params.presence_penalty or self.params.frequency_penalty:
                scores = self._penalised(scores)
            if self._constraint is not None:
                scores = scores.masked_fill(~self._constraint.allowed()[: scores.shape[1]], -math.inf)
            if self._processors:
                scores = self._processors(self._ids[:, : self._count], scores)
            if self.params.greedy:
                token = int(scores.argmax())
            else:
                chances = torch.softmax(scores, dim=-1)
                token = int(torch.multinomial(chances, num_samples=1, generator=self._generator))
            if self._count < self._ids.shape[1]:
                self._ids[0, self._count] = token
                self._count += 1
            if self._constraint is not None:
                self._constraint.push(token)
        return token

    def _penalised(self, scores_1V: Tensor) -> Tensor:
        counts_V = torch.bincount(self._ids[0, self._prompt : self._count], minlength=scores_1V.shape[1])
        params = self.params
        return scores_1V - params.frequency_penalty * counts_V - params.presence_penalty * (counts_V > 0)

    def fork(self) -> Sampler:
        """One that goes on as this one would, with the same random numbers, and leaves this one as it is."""
        other = copy.copy(self)
        other._ids = self._ids.clone()
        other._constraint = self._constraint.fork() if self._constraint is not None else None
        other._generator = torch.Generator()
        other._generator.set_state(self._generator.get_state())
        return other


class StopWatcher:
    """Turns one sequence's tokens into text as it may be shown: never half a character, nothing of a stop string.

    Push every token; what `push` and finally `flush` return adds up to the text before the stop string that was
    complete first, which is then `stopped`.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []
        self._context, self._shown = 0, 0
        self._pending = ""
        self.stopped: str | None = None

    def push(self, token_id: int) -> str:
        """The text that this token makes certain (often none). Nothing more comes once `stopped` is set."""
        if self.stopped is not None:
            return ""
        self._ids.append(token_id)
        self._pending += self._decoded(final=False)
        return self._release(final=False)

    def flush(self) -> str:
        """The text still held back, at the end of the sequence."""
        if self.stopped is not None:
            return ""
        self._pending += self._decoded(final=True)
        return self._release(final=True)

    def _decoded(self, *, final: bool) -> str:
        # A token's text depends on its neighbours (spaces, bytes of one character): decode with what came before it.
        before = self._decode(self._ids[self._context : self._shown])
        text = self._decode(self._ids[self._context :])
        held = len(self._ids) - self._shown
        if len(text) <= len(before) or (text.endswith(_UNFINISHED) and not final and held <= _MAX_HELD_TOKENS):
            return ""
        self._context, self._shown = self._shown, len(self._ids)
        return text[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        if not ids:
            return ""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _release(self, *, final: bool) -> str:
        # the one complete first, so that how tokens cut the text does not matter
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := self._pending.find(stop)) >= 0]
        if found:
            _, at, self.stopped = min(found)
            text, self._pending = self._pending[:at], ""
            return text
        keep = 0 if final else max((_overlap(self._pending, stop) for stop in self._stop), default=0)
        cut = len(self._pending) - keep
        text, self._pending = self._pending[:cut], self._pending[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` could begin `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


def _processors(params: SamplingParams) -> Any:
    # imported late: a command line that only names SamplingParams should not wait for all of transformers
    from transformers import (
        LogitsProcessorList,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    chosen: Any = LogitsProcessorList()
    if params.repetition_penalty != 1:
        chosen.append(RepetitionPenaltyLogitsProcessor(float(params.repetition_penalty)))
    if not params.greedy:
        if params.temperature != 1:
            chosen.append(TemperatureLogitsWarper(float(params.temperature)))
        if params.top_k:
            chosen.append(TopKLogitsWarper(params.top_k))
        if params.top_p < 1:
            chosen.append(TopPLogitsWarper(float(params.top_p)))
    return chosen


def _whole(value: object) -> bool:
    return type(value) is int


def _number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _require(holds: bool, promise: str) -> None:
    if not holds:
        raise InvalidInput(promise)
