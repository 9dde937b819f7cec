"""Many prompts at once, spread over the nodes that could serve them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from corolla.engine import Engine
from corolla.values import ChatMessage, Generation
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import CorollaError, InvalidInput

AT_ONCE = 8
"""Sessions of one client at a time: nodes give each client only so many, and so much of their memory."""


async def generate_many(
    engine: Engine,
    prompts: Sequence[str | Sequence[ChatMessage]],
    params: SamplingParams,
    *,
    at_once: int = AT_ONCE,
    logprobs: bool = False,
) -> list[Generation | CorollaError]:
    """A text, or why there is none, for each prompt, in their order; at most `at_once` are being made at a time.

    Each is a session of its own. What this client has under way at a node counts as time there, so that nodes which
    serve the same blocks share the work. Raises InvalidInput for an `at_once` below 1, and NetworkError where it is not
    known who serves at all.
    """
    if at_once < 1:
        raise InvalidInput("at least one prompt at a time")
    turns = asyncio.Semaphore(at_once)

    async def one(prompt: str | Sequence[ChatMessage]) -> Generation | CorollaError:
        async with turns:
            try:
                return await engine.stream(prompt, params, logprobs=logprobs).read()
            except CorollaError as error:
                return error

    if len(prompts) > 1:
        await engine.meet()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one(prompt)) for prompt in prompts]
    return [task.result() for task in running]
