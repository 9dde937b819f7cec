"""A rival as its judge sees it: a process that is told what to generate and answers with tokens and seconds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""Where `-m benchmarks…` is found."""


@dataclass(frozen=True, slots=True)
class TimedRun:
    """New tokens, and seconds: `prefill` until the first was known, `decode` for all the others, `steps` for each of
    those where that is known."""

    token_ids: tuple[int, ...]
    prefill: float
    decode: float
    steps: tuple[float, ...] = ()


class RivalUnavailable(Exception):
    """It cannot be set up on this machine; its rows are left out."""


class Rival:
    """It idles between runs, so that it can take turns with what it is compared with."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def run(self, prompt: Sequence[int], tokens: int) -> TimedRun:
        """Exactly `tokens` greedy tokens after `prompt`. Raises RivalUnavailable when it has died."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompt": list(prompt), "tokens": tokens}).encode() + b"\n")
        answer = await self.read()
        steps = tuple(answer["steps"])
        return TimedRun(tuple(answer["ids"]), prefill=answer["prefill"], decode=sum(steps), steps=steps)

    async def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RivalUnavailable("it ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def rival(
    module: str, *args: str, python: str = sys.executable, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Rival]:
    """`python -m module`, ready, with one compute thread; gone afterwards, and all that it started."""
    process = await asyncio.create_subprocess_exec(
        python,
        "-m",
        module,
        *args,
        stdin=PIPE,
        stdout=PIPE,
        limit=1 << 24,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **(environ or {})},
        start_new_session=True,
    )
    try:
        it = Rival(process)
        await it.read()
        yield it
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
