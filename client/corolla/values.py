"""What a generation gives back: plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar

NOTHING = Nectar(0)

FinishReason = Literal["eos", "stop", "length"]


class ChatMessage(TypedDict):
    """One turn, as chat templates take it: `{"role": "user", "content": "…"}`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages together with the tools the model may call, each as OpenAI's API describes a tool. Messages may carry
    more than role and content where the model's chat template knows of it (`tool_calls`, `tool_call_id`, `name`)."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()


Prompt = str | Sequence[int] | Sequence[ChatMessage] | Conversation
"""A text as it is, its token ids, or what goes through the model's chat template."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that has just become certain, with the tokens generated since the piece before.

    `text` may be empty while a character or a possible stop string is incomplete. `logprobs` go with `token_ids`, and
    so do the likeliest tokens of each position, `top_logprobs`, with their log probabilities, likeliest first.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What one node did for a generation. `cost` is its work at its price, `paid` what vouchers promised it for that
    work; a replacement's `tokens` include the history replayed to it."""

    account: Address
    span: Span
    tokens: int
    cost: Nectar
    paid: Nectar
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """`seconds` is from the call to the last token; `first_token_seconds` to the first one. `drafted` tokens were sent
    through the nodes on speculation and `accepted` of them were right; the others were paid for in vain."""

    prompt_tokens: int
    cached_tokens: int
    tokens: int
    seconds: float
    first_token_seconds: float
    cost: Nectar
    per_node: tuple[NodeUsage, ...]
    failovers: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed, the first token's wait left out."""
        decoding = self.seconds - self.first_token_seconds
        return (self.tokens - 1) / decoding if self.tokens > 1 and decoding > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What a generation has taken so far, ended or not."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    tokens: int = 0
    cost: Nectar = NOTHING


@dataclass(frozen=True, slots=True)
class RouteHop:
    """Who serves which blocks."""

    account: Address
    span: Span


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished text. `token_ids` are the new ones, the end-of-text token not among them."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    route: tuple[RouteHop, ...]
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class BeamText:
    """A text found by beam search; `score` is its log probability per token."""

    text: str
    token_ids: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Balance:
    """A client's money: `wallet` tokens in its account, `free` in the escrow, `locked` in tranches not reclaimed yet,
    `signed` away on them by vouchers. `gas` is the chain's coin, in wei."""

    account: Address
    wallet: Nectar
    free: Nectar
    locked: Nectar
    signed: Nectar
    gas: int
