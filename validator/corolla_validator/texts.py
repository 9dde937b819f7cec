"""Real text to measure with, the same everywhere: Python's own language reference, as its `help()` ships it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from corolla_core.protocol.errors import InvalidInput


def prose() -> str:
    """Some 460,000 characters of English and code (PSF licence); it differs between versions of Python."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def text_hash(text: str) -> str:
    """What a measurement states of the text it used."""
    return sha256(text.encode()).hexdigest()


def passages(tokenizer: Any, *, length: int, part: int, parts: int = 2) -> list[Tensor]:
    """Token ids [1, length] of passages of the prose that do not overlap, every `parts`-th of them from `part` on: so
    that thresholds are never tested on text they were measured with. In a fixed order, spread over all of it.

    Raises InvalidInput when the text has no passage so long.
    """
    if length < 2 or not 0 <= part < parts:
        raise InvalidInput("a passage has two tokens or more, and a part is below the number of parts")
    ids: Sequence[int] = tokenizer(prose(), verbose=False)["input_ids"]
    whole = [torch.tensor([ids[at : at + length]]) for at in range(0, len(ids) - length + 1, length)]
    if not whole:
        raise InvalidInput(f"the text has no passage of {length} tokens")
    return [whole[index] for index in _spread(len(whole)) if index % parts == part]


def _spread(count: int) -> list[int]:
    """All of `range(count)`, its beginning far apart from one another: by the digits of the index, reversed."""
    bits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda index: int(f"{index:0{bits}b}"[::-1], 2))
