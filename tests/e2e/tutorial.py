"""A tutorial's commands, as a reader would copy them, and what tells a test what to expect of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

_BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Kind(Enum):
    RUN = auto()
    STAY = auto()
    FILE = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """`expected` is in what the commands print, or is the file's name."""

    kind: Kind
    text: str
    expected: str = ""


def steps(page: str) -> Iterator[Step]:
    """Every shell block, and every file that the reader is told to write. Raises ValueError for a note not known."""
    for block in _BLOCK.finditer(page):
        note, text = block["note"] or "", block["text"]
        what, _, rest = note.partition(": ")
        if what == "file":
            yield Step(Kind.FILE, text, rest)
        elif block["language"] != "bash":
            if note:
                raise ValueError(f"not a note for {block['language']}: {note}")
        elif what == "in its own terminal until":
            yield Step(Kind.STAY, text, rest)
        elif what in ("prints", ""):
            yield Step(Kind.RUN, text, rest)
        else:
            raise ValueError(f"not a note: {note}")
