"""A session's part of its client's trace: a span for each step, with what it waited and what it computed."""

from __future__ import annotations

from corolla_core.config.tracing import Traced
from corolla_node.timings import StepTiming

MAX_STEPS = 128
"""The steps of a session that become spans: a client must not fill the operator's collector with one session."""


class SessionTrace:
    def __init__(self, traced: Traced) -> None:
        self._traced = traced
        self._steps = 0

    def step(self, timing: StepTiming, *, pos: int) -> None:
        """A step that is done and sent."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            return
        began = timing.received + timing.pay
        started = began + timing.queue
        computing = started + timing.decode
        computed = computing + timing.compute
        ended = computed + timing.encode + timing.deliver + timing.send
        step = self._traced.note("corolla.node.step", timing.received, ended, pos=pos, tokens=timing.tokens)
        step.note("corolla.node.queue", began, started)
        step.note("corolla.node.compute", computing, computed, pass_rows=timing.pass_rows)

    def end(self, reason: str, *, tokens: int) -> None:
        self._traced.end(reason=reason, tokens=tokens, steps=self._steps)
