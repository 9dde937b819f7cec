"""Into which steps a prompt is cut, so that every node of the chain has one to work at: a pure choice."""

from __future__ import annotations

from math import sqrt

PASS_ROWS = 8
"""What a pass through a span costs beside its rows, in rows. Ten blocks of SmolLM2-135M on one CPU thread take 18 ms
and 2.3 ms a row."""
LEAST = 32
"""Rows of a step that is cut: with fewer, what nodes and client do for every step (sign, pay, queue) begins to show."""


def prefill_steps(tokens: int, *, hops: int, most: int, keep: int = 1) -> list[int]:
    """How many of `tokens` positions go into each step, at most `most`, the last at least `keep` (which is no more than
    `most`).

    In rows' time `k` steps of `n` positions take `(k + hops - 1)(n + PASS_ROWS)`: all of them at one node, and the last
    one at all others. That is least at `n = √(tokens · PASS_ROWS / (hops - 1))`, and more so where the steps are alike.
    How far apart the nodes are is of no account, as a step does not wait for the answer to the one before.
    """
    best = most if hops < 2 else sqrt(tokens * PASS_ROWS / (hops - 1))
    size = round(min(most, max(LEAST, best)))
    count = -(-tokens // size)
    last = max(tokens // count, min(keep, tokens))
    rest = tokens - last
    count = -(-rest // -(-tokens // count))
    return [*(rest // count + (step < rest % count) for step in range(count)), last]
