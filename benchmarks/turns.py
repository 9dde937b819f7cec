"""Side by side: everybody generates the same, taking turns, so that whatever else runs disturbs them all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median

from benchmarks.prompts import Prompt
from benchmarks.rivals.rival import Rival, TimedRun
from corolla.client import AsyncClient
from corolla_core.model.sampling import SamplingParams

Contestant = Callable[[Prompt, int], Awaitable[TimedRun]]
"""Generates so many tokens after a prompt."""
Runs = dict[str, list[TimedRun]]


class Meaningless(Exception):
    """Two that should have done the same work did not: their times compare nothing."""


def corolla(client: AsyncClient) -> Contestant:
    async def run(prompt: Prompt, tokens: int) -> TimedRun:
        usage = (done := await client.generate(prompt.text, SamplingParams(max_tokens=tokens))).usage
        return TimedRun(
            done.token_ids, prefill=usage.first_token_seconds, decode=usage.seconds - usage.first_token_seconds
        )

    return run


def alone(rival: Rival) -> Contestant:
    async def run(prompt: Prompt, tokens: int) -> TimedRun:
        return await rival.run(prompt.ids, tokens)

    return run


def briefly(contestant: Contestant, *, part: int) -> Contestant:
    """One that would take too long: it generates a `part`-th of the tokens, two at least."""

    async def run(prompt: Prompt, tokens: int) -> TimedRun:
        return await contestant(prompt, max(2, tokens // part))

    return run


async def take_turns(contestants: Mapping[str, Contestant], prompts: Sequence[Prompt], tokens: int) -> Runs:
    """A B A B …, a round for each prompt, the first of which warms everybody up. Raises Meaningless unless all begin
    alike; the first contestant says how."""
    runs: Runs = {name: [] for name in contestants}
    for number, prompt in enumerate(prompts):
        expected: tuple[int, ...] | None = None
        for name, contestant in contestants.items():
            run = await contestant(prompt, tokens)
            expected = expected or run.token_ids
            if len(run.token_ids) < 2 or run.token_ids != expected[: len(run.token_ids)]:
                raise Meaningless(f"{name} says {run.token_ids}, and not {expected}")
            if number:
                runs[name].append(run)
    return runs


def token_seconds(runs: Sequence[TimedRun]) -> float:
    """The median seconds a token, the first one's wait left out."""
    return median(run.decode / (len(run.token_ids) - 1) for run in runs)


def first_seconds(runs: Sequence[TimedRun]) -> float:
    """The median wait for the first token."""
    return median(run.prefill for run in runs)
