"""What everybody is asked to go on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer

_PASSAGE = (
    "The corolla of a flower is the whorl of its petals. It is often brightly coloured, it draws bees and other "
    "insects to the nectar, and it falls when its work is done. Botanists count and compare petals because related "
    "plants share their number and their shape. "
)
_STORY = "Once upon a time, in a garden behind an old mill, there lived a bee who"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and what the model's tokenizer makes of it."""

    text: str
    ids: tuple[int, ...]


class Prompts:
    """Prompts for whom `encode` gives the tokens."""

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        self._encode = encode

    @classmethod
    def for_checkpoint(cls, checkpoint: Path) -> Prompts:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        return cls(lambda text: tokenizer(text).input_ids)

    def of(self, text: str) -> Prompt:
        return Prompt(text, tuple(self._encode(text)))

    def story(self) -> Prompt:
        """A short one, to decode from."""
        return self.of(_STORY)

    def passage(self, tokens: int, *, chapter: int = 1) -> Prompt:
        """A text of just under `tokens` tokens. Chapters differ from their first words on, so that no node can know one
        by another."""
        prompt = self.of(f"{chapter}. {_PASSAGE}")
        while len((longer := self.of(prompt.text + _PASSAGE)).ids) <= tokens:
            prompt = longer
        return prompt
