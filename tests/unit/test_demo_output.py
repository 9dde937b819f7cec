"""What the demo writes while tokens arrive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corolla.demo import wrapped


def stream(pieces: list[str], width: int) -> str:
    column, lines = 0, ""
    for piece in pieces:
        text, column = wrapped(piece, column, width=width)
        lines += text
    return lines


def test_a_word_that_would_cross_the_edge_starts_a_new_line() -> None:
    assert stream(["The", " quick", " brown", " fox"], 10) == "The quick\nbrown fox"


def test_a_line_break_of_the_text_is_kept() -> None:
    assert stream(["one\ntwo", " three"], 9) == "one\ntwo three"


@given(st.lists(st.text(alphabet="ab \n", max_size=12), max_size=20), st.integers(5, 30))
def test_wrapping_changes_nothing_but_spaces_into_line_breaks(pieces: list[str], width: int) -> None:
    assert stream(pieces, width).replace("\n", " ") == "".join(pieces).replace("\n", " ")
