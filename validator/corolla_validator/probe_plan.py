"""What a probe asks for: lengths as real sessions have them, and text that was never asked before. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from random import Random

from corolla_core.store.probes import Lengths

ENOUGH = 20
"""So many real sessions are a distribution to draw from; with fewer the table below stands in."""
TABLE = (
    Lengths(34, 24), Lengths(42, 60), Lengths(48, 120), Lengths(61, 33), Lengths(75, 200),
    Lengths(96, 80), Lengths(130, 150), Lengths(210, 110), Lengths(340, 180), Lengths(520, 90),
)  # fmt: skip
"""Short questions with answers of a few sentences, and some texts to be worked on."""
USUAL_LIMITS = (16, 32, 50, 64, 100, 128, 200, 256, 400, 512, 1024)
"""Limits of new tokens as people and programs state them, 256 being the client's own. A node sees the limit, and that
most answers end below it."""
LONGEST = Lengths(1024, 1024)


def draw_lengths(seen: Sequence[Lengths], rng: Random) -> Lengths:
    """One of the real sessions' lengths, a little changed, or one of the table's."""
    base = rng.choice(seen if len(seen) >= ENOUGH else TABLE)
    return Lengths(*(
        min(most, max(8, round(length * rng.uniform(0.85, 1.15))))
        for length, most in ((base.prompt, LONGEST.prompt), (base.generated, LONGEST.generated))
    ))  # fmt: skip


def limit_for(generated: int) -> int:
    """The least usual limit that leaves room for so many new tokens."""
    return USUAL_LIMITS[min(bisect_left(USUAL_LIMITS, generated), len(USUAL_LIMITS) - 1)]


def draw_prompt(texts: Sequence[str], tokens: int, rng: Random, *, count: Callable[[str], int]) -> str:
    """A stretch of one of the texts, begun at a word anywhere in it, of about so many tokens as `count` counts them;
    all that is left of the text where that is less."""
    text = rng.choices(texts, weights=[len(text) for text in texts])[0]
    words = text.split()
    start = rng.randrange(max(1, len(words) - tokens))
    most = min(len(words), start + tokens)  # no token is more than a word
    low, high = start + 1, most
    while low < high:
        middle = (low + high + 1) // 2
        if count(" ".join(words[start:middle])) <= tokens:
            low = middle
        else:
            high = middle - 1
    return " ".join(words[start:low])
