"""Calls of tools in what a model writes."""

from __future__ import annotations

import json
from dataclasses import dataclass

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function's name, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolReader:
    """Tells calls, `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, from the text around them. What is in such
    tags and is no call stays text."""

    def __init__(self) -> None:
        self._pending = ""

    def push(self, text: str) -> list[str | ToolCall]:
        """Texts and calls that this makes certain."""
        self._pending += text
        found: list[str | ToolCall] = []
        while (start := self._pending.find(OPEN)) >= 0:
            end = self._pending.find(CLOSE, start)
            if end < 0:
                return self._before(start, found)
            body, after = self._pending[start + len(OPEN) : end], end + len(CLOSE)
            call = parse_call(body)
            self._before(start, found)
            found.append(self._pending[: after - start] if call is None else call)
            self._pending = self._pending[after - start :]
        return self._before(len(self._pending) - _overlap(self._pending), found)

    def flush(self) -> list[str | ToolCall]:
        """What is left at the end of the text: a call whose tag was cut off or left open, else text."""
        text, self._pending = self._pending, ""
        call = parse_call(text.removeprefix(OPEN)) if text.startswith(OPEN) else None
        found: str | ToolCall = text if call is None else call
        return [found] if found else []

    def _before(self, start: int, found: list[str | ToolCall]) -> list[str | ToolCall]:
        if self._pending[:start]:
            found.append(self._pending[:start])
        self._pending = self._pending[start:]
        return found


def parse_call(text: str) -> ToolCall | None:
    """The call that a JSON text is, None where it is none."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        return None
    arguments = raw.get("arguments", {})
    if isinstance(arguments, dict):
        return ToolCall(raw["name"], json.dumps(arguments))
    return None


def _overlap(text: str) -> int:
    """How many characters at the end of `text` could begin a call."""
    return next((n for n in range(min(len(text), len(OPEN) - 1), 0, -1) if OPEN.startswith(text[-n:])), 0)
