"""Beam search over the swarm: one session whose batch rows are the beams, its caches reordered as beams survive.

The scores and the stopping rule are those of transformers' `generate(num_beams=…)` with its defaults (length penalty 1,
no early stopping), so the text is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from corolla.ends import Ends
from corolla.generation import TextModel
from corolla.session import Session
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import InvalidInput

MAX_BEAMS = 64
_NEVER = -1.0e9


@dataclass(frozen=True, slots=True)
class Beam:
    """A finished candidate; `score` is its log probability per token."""

    token_ids: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class _Step:
    parents: list[int]
    tokens: list[int]
    done: bool


@dataclass(slots=True)
class BeamSearch:
    """The search itself, without any I/O. `finished` are the best candidates so far, best first."""

    beams: int
    max_tokens: int
    eos_ids: frozenset[int]
    finished: list[Beam] = field(default_factory=list)
    _texts: list[tuple[int, ...]] = field(init=False)
    _scores: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._texts = [()] * self.beams
        # All beams are the same at first: only one may propose.
        self._scores = torch.full((self.beams,), _NEVER)
        self._scores[0] = 0.0

    def advance(self, logits_BV: Tensor) -> _Step:
        """Take the logits after each beam; which beams go on, each from which parent and with which token."""
        totals = torch.log_softmax(logits_BV.float(), dim=-1) + self._scores[:, None]
        vocab = totals.shape[1]
        kept = max(2, 1 + len(self.eos_ids)) * self.beams
        scores, flat = torch.topk(totals.reshape(-1), k=min(kept, totals.numel()))
        parents, tokens = (flat // vocab).tolist(), (flat % vocab).tolist()
        length = len(self._texts[0]) + 1
        over = [token in self.eos_ids or length >= self.max_tokens for token in tokens]
        for rank, (score, parent, token) in enumerate(zip(scores.tolist(), parents, tokens, strict=True)):
            if over[rank] and rank < self.beams:
                ids = self._texts[parent] + (() if token in self.eos_ids else (token,))
                self.finished.append(Beam(ids, score / length))
        self.finished = sorted(self.finished, key=lambda beam: -beam.score)[: self.beams]
        running = scores + torch.tensor(over) * _NEVER
        self._scores, chosen = torch.topk(running, k=self.beams)
        picks = chosen.tolist()
        self._texts = [(*self._texts[parents[i]], tokens[i]) for i in picks]
        return _Step([parents[i] for i in picks], [tokens[i] for i in picks], all(over) or self._settled(length))

    def _settled(self, length: int) -> bool:
        """Whether no running beam can still beat the worst finished one."""
        full = len(self.finished) == self.beams
        return full and float(self._scores[0]) / length <= self.finished[-1].score


class BeamTape:
    """What each row of a session's caches holds, before the step under way."""

    def __init__(self, model: TextModel, rows: list[list[int]]) -> None:
        self.rows = rows
        self.ends: Ends
        self._model = model

    def begin(self, max_tokens: int) -> None:
        self.ends = self._model.ends(len(self.rows), max_tokens)

    async def inputs(self, start: int, stop: int) -> Tensor:
        """The inputs of positions `[start, stop)` once more."""
        hidden: Tensor = await self._model.run(self.ends.again, [row[start:stop] for row in self.rows], start)
        return hidden


def check_beams(params: SamplingParams, beams: int) -> None:
    """Raises InvalidInput for what beam search does not do."""
    if not 2 <= beams <= MAX_BEAMS:
        raise InvalidInput(f"from 2 to {MAX_BEAMS} beams")
    if not params.greedy or params.repetition_penalty != 1 or params.stop or params.json_schema:
        raise InvalidInput("beam search takes no temperature, repetition penalty, stop strings or schema")
    if params.presence_penalty or params.frequency_penalty:
        raise InvalidInput("beam search takes no penalties")


async def search(
    model: TextModel, session: Session, tape: BeamTape, params: SamplingParams, prompt: Sequence[int]
) -> list[Beam]:
    """Candidates for the text after `prompt`, best first. `session` is new, with a batch row for each beam."""
    beams = len(tape.rows)
    state = BeamSearch(beams, params.max_tokens, model.eos_ids)
    ends, position = tape.ends, 0
    output = await session.forward(await model.run(ends.embed, tape.rows, 0))
    parents: Sequence[int] | None = None
    while True:
        logits_BV: Tensor = await model.run(_last_logits, ends, output, position, parents)
        step: _Step = await model.run(state.advance, logits_BV)
        if step.done:
            return state.finished
        position, parents = session.position, step.parents
        hidden = await model.run(partial(ends.embed, reorder=parents), [[token] for token in step.tokens], position)
        output = await session.answer(await session.send(hidden, reorder=parents))
        tape.rows = [[*tape.rows[parent], token] for parent, token in zip(parents, step.tokens, strict=True)]


def _last_logits(ends: Ends, output_BTD: Tensor, position: int, parents: Sequence[int] | None) -> Tensor:
    return ends.logits(output_BTD, position, keep=1, reorder=parents)[:, -1]
