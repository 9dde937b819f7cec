"""The side of a rival's process. Only the standard library: it also runs in environments that are not ours.

{"prompt": [ids], "tokens": 64}  →  {"ids": [...], "prefill": seconds, "steps": [seconds]}
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Generator

Tokens = Callable[[list[int], int], Generator[int, None, None]]
"""Greedy tokens after a prompt, as they are known; asked for no more than so many."""


def serve(generate: Tokens) -> None:
    """Answer one line after the other, until stdin closes."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    out.write('{"ready": true}\n')
    for line in sys.stdin:
        request = json.loads(line)
        out.write(json.dumps(timed(generate, request["prompt"], request["tokens"])) + "\n")


def timed(generate: Tokens, prompt: list[int], tokens: int) -> dict[str, object]:
    """Exactly `tokens` tokens, the seconds until the first was known, and those for each of the others."""
    moments = [time.perf_counter()]
    source = generate(prompt, tokens)
    ids = []
    for _ in range(tokens):
        ids.append(next(source))
        moments.append(time.perf_counter())
    source.close()
    prefill, *steps = (after - before for before, after in itertools.pairwise(moments))
    return {"ids": ids, "prefill": prefill, "steps": steps}
