"""The client's settings; see `corolla_core.config.layered` for where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from corolla_core.config import LayeredSettings
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.units import Nectar, nectar_from_text


def _parse_local_blocks(text: object) -> object:
    """`"2,1"`, or `"2"` for as many at either end, as a pair."""
    if not isinstance(text, (str, int)):
        return text
    first, _, last = str(text).partition(",")
    if not all(part.strip().isdecimal() for part in (first, last or first)):
        raise ValueError(f"how many first and last blocks, such as 2,1, not {text!r:.40}")
    return int(first), int(last or first)


def _check_amount(text: object) -> object:
    if text is not None:
        try:
            nectar_from_text(str(text))
        except InvalidInput as error:
            raise ValueError(str(error)) from None
    return None if text is None else str(text)


class ClientSettings(LayeredSettings):
    """What `corolla` can be told. Amounts of tokens are decimal text; `account` is a keystore's name or path."""

    table: ClassVar[str] = "client"

    network: str = "devnet"
    model: str | None = None
    account: str | None = None
    password_file: Path | None = None
    spending_limit: Annotated[str | None, BeforeValidator(_check_amount)] = None
    max_price: Annotated[int | None, Field(ge=0, le=2**96)] = None
    """the most a node may ask per token and block, in base units, as nodes state their price"""
    store: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    speculate: Annotated[str, Field(min_length=1)] = "auto"
    """auto, off, lookup, or the checkpoint of a draft model"""
    max_waste: Annotated[float, Field(ge=0, le=100)] = 0.5
    """wrongly guessed positions that are paid for, for each token generated"""
    wire_dtype: Literal["float32", "bfloat16", "float16", "int8"] = "float32"
    local_blocks: Annotated[tuple[int, int], BeforeValidator(_parse_local_blocks)] = (0, 0)
    """how many of the model's first and last blocks are computed here and shown to no node"""
    chunk_tokens: Annotated[int, Field(ge=1, le=4096)] = 8
    price_importance: Annotated[float, Field(ge=0)] = 0.5
    spares: Annotated[int, Field(ge=0, le=8)] = 2
    tranche_sessions: Annotated[int, Field(ge=1, le=1000)] = 8
    """how many sessions one tranche has room for"""
    tranche_hours: Annotated[float, Field(ge=1)] = 24.0
    threads: Annotated[int | None, Field(ge=1)] = None
    gateway_host: str = "127.0.0.1"
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = 8000
    gateway_drain: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """seconds that running answers get to end when the gateway is told to stop"""
    gateway_keys: bool = False
    """whether requests need an API key"""
    gateway_books: str | None = None
    """the database of the gateway's keys; a file under the home folder if unset"""
    gateway_policy: Path | None = None
    """TOML: where requests may run, in order; the swarm if unset"""
    gateway_streams: Annotated[int, Field(ge=1, le=10_000)] = 200
    """texts made at the same time"""
    gateway_key_streams: Annotated[int | None, Field(ge=1, le=10_000)] = None
    """and of one key; all of them if unset"""
    gateway_waiting: Annotated[int, Field(ge=0, le=10_000)] = 64
    """requests that may wait for room"""
    gateway_patience: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """and for how many seconds"""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"

    @property
    def limit(self) -> Nectar | None:
        return None if self.spending_limit is None else nectar_from_text(self.spending_limit)
