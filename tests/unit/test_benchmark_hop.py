"""The hop benchmark accounts for every moment of a token."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from benchmarks.hop import overhead, parts_of

STEP = {"pay": 0.1, "queue": 0.2, "decode": 0.3, "compute": 40.0, "encode": 0.4, "deliver": 0.5, "send": 0.25}
INSIDE = sum(STEP.values()) - STEP["send"]
LINK, THERE, WORK, BACK = 0.6, 0.7, 11.0, 0.8


def moments(count: int) -> dict[str, Any]:
    """Tokens one after the other, with a warm-up token before them and the client's work on a prompt among its own."""
    left, came, work, first, second = [], [], [(-5.0, -1.0)], [], []
    now = 0.0
    for _ in range(count + 1):
        left.append(now)
        first.append(STEP | {"received": now + LINK})
        second.append(STEP | {"received": now + 2 * LINK + INSIDE})
        came.append(now + 3 * LINK + 2 * INSIDE)
        work.append((came[-1] + THERE, came[-1] + THERE + WORK))
        now = work[-1][1] + BACK
    return {"left": left, "came": came, "work": work, "nodes": [first, second]}


def test_the_parts_of_a_token_add_up_to_it() -> None:
    parts = parts_of(moments(4), 4)
    whole = parts.pop("a token")
    counted = [seconds for name, seconds in parts.items() if "(" not in name]
    for number, token in enumerate(whole):
        assert sum(seconds[number] for seconds in counted) == pytest.approx(token)
    assert len(whole) == 3


def test_overhead_is_the_links_and_what_a_node_does_beside_the_forward_pass() -> None:
    assert overhead(parts_of(moments(4), 4)) == pytest.approx((3 * LINK + 2 * (INSIDE - STEP["compute"])) / 2)


def test_only_the_last_tokens_count() -> None:
    made = moments(6)
    made["left"][0] -= 100
    assert parts_of(made, 4)["a token"] == pytest.approx([b - a for a, b in pairwise(made["left"][-4:])])
