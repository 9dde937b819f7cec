"""Plain transformers in a process of its own, told what to do by lines of JSON on stdin.

{"prompt": [ids], "tokens": 64}  →  {"prefill": seconds, "steps": [seconds], "ids": [...]}
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from corolla.devnet.reference import Reference, TimedRun


class PlainModel:
    """The baseline. It idles between runs, so that it can take turns with what it is compared with."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def run(self, prompt: Sequence[int], tokens: int) -> TimedRun:
        """Exactly `tokens` greedy tokens after `prompt`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"prompt": list(prompt), "tokens": tokens}).encode() + b"\n")
        answer = json.loads(await self._process.stdout.readline())
        return TimedRun(tuple(answer["ids"]), prefill=answer["prefill"], steps=tuple(answer["steps"]))


@asynccontextmanager
async def plain_model(checkpoint: Path, *, threads: int = 1) -> AsyncIterator[PlainModel]:
    """A loaded baseline, gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.plain",
        str(checkpoint),
        str(threads),
        stdin=PIPE,
        stdout=PIPE,
        limit=1 << 24,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    try:
        yield PlainModel(process)
    finally:
        process.kill()
        await process.wait()


def _serve(checkpoint: Path, threads: int) -> None:
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(threads)
    reference = Reference(checkpoint)
    for line in sys.stdin:
        request = json.loads(line)
        run = reference.timed(request["prompt"], request["tokens"])
        answer = {"prefill": run.prefill, "steps": run.steps, "ids": run.token_ids}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]))
