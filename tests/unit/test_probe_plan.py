"""A probe is as long as real sessions are, and asks what was not asked before."""

from __future__ import annotations

from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from corolla_core.store.probes import Lengths
from corolla_validator.probe_plan import (
    ENOUGH,
    LONGEST,
    TABLE,
    USUAL_LIMITS,
    draw_lengths,
    draw_prompt,
    limit_for,
)
from corolla_validator.probes import Material
from corolla_validator.texts import prose

lengths = st.builds(Lengths, st.integers(1, 5000), st.integers(1, 5000))


@given(st.lists(lengths, max_size=2 * ENOUGH), st.integers())
def test_lengths_are_near_those_seen_or_the_tables_and_never_beyond_what_is_allowed(
    seen: list[Lengths], seed: int
) -> None:
    drawn = draw_lengths(seen, Random(seed))
    assert 8 <= drawn.prompt <= LONGEST.prompt
    assert 8 <= drawn.generated <= LONGEST.generated
    source = seen if len(seen) >= ENOUGH else list(TABLE)

    def near(one: int, other: int, most: int) -> bool:
        return min(most, max(8, round(0.85 * one))) <= other <= min(most, max(8, round(1.15 * one)))

    assert any(
        near(each.prompt, drawn.prompt, LONGEST.prompt) and near(each.generated, drawn.generated, LONGEST.generated)
        for each in source
    )


@given(st.integers(1, LONGEST.generated))
def test_a_limit_is_a_usual_one_that_leaves_room(generated: int) -> None:
    limit = limit_for(generated)
    assert limit in USUAL_LIMITS
    assert limit >= generated
    assert not [each for each in USUAL_LIMITS if generated <= each < limit]


@given(st.integers(1, 400), st.integers(1, 5), st.integers())
def test_a_prompt_is_a_stretch_of_the_text_of_about_the_length_asked_for(tokens: int, each: int, seed: int) -> None:
    def count(text: str) -> int:
        return 3 + each * len(text.split())

    text = prose()
    asked = draw_prompt([text], tokens, Random(seed), count=count)
    assert asked in " ".join(text.split())
    words = len(asked.split())
    assert words >= 1
    assert count(asked) <= max(tokens, 3 + each)
    assert words == max(1, min((tokens - 3) // each, tokens))


def test_prompts_do_not_repeat() -> None:
    rng = Random(1)
    asked = [draw_prompt([prose()], 40, rng, count=lambda text: len(text.split())) for _ in range(200)]
    assert len(set(asked)) == 200


def test_what_was_answered_becomes_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "probes" / "material.txt"
    material = Material(path, first="in the beginning")
    assert material.texts(tokens=10) == ["in the beginning"]
    material.add("a short answer")
    assert material.texts(tokens=10) == ["in the beginning"]  # so little would repeat itself
    for number in range(20):
        material.add(f"answer number {number} of them")
    (kept,) = Material(path, first="in the beginning").texts(tokens=10)
    assert "answer number 19" in kept
