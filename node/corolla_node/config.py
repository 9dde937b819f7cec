"""The node's settings; see `corolla_core.config.layered` for where they come from."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from corolla_core.config import LayeredSettings
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar, nectar_from_text

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_bytes(text: object) -> object:
    """`"1.5GiB"`, `"512MB"` (binary too) or a number, as bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", str(text).strip().lower())
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    return int(Decimal(match[1]) * _UNITS[match[2]])


def _check_blocks(text: object) -> object:
    if text != "auto":
        try:
            Span.parse(str(text))
        except InvalidInput as error:
            raise ValueError(str(error)) from None
    return text


def _check_stake(text: object) -> object:
    if text is not None:
        try:
            nectar_from_text(str(text))
        except InvalidInput as error:
            raise ValueError(str(error)) from None
    return text


Bytes = Annotated[int, BeforeValidator(parse_bytes)]
Seconds = Annotated[float, Field(ge=0)]


class NodeSettings(LayeredSettings):
    """What `node up` can be told. Amounts of tokens are decimal text, sizes may have units, times are seconds."""

    table: ClassVar[str] = "node"

    model: str | None = None
    blocks: Annotated[str, BeforeValidator(_check_blocks)] = "auto"
    max_blocks: Annotated[int | None, Field(ge=1)] = None
    rebalance_interval: Seconds = 300.0
    """seconds between two looks, on average, at whether other blocks are needed more; 0 or chosen blocks: never"""
    rebalance_threshold: Annotated[float, Field(gt=0)] = 0.2
    """how much better than where it would go a node must leave its blocks served"""
    move_grace: Seconds = 600.0
    """how long sessions may go on at the old blocks of a node that moves"""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    threads: Annotated[int | None, Field(ge=1)] = None
    price: Annotated[int, Field(ge=0, le=2**96)] = 1_000_000_000_000
    """base units of Nectar per token and block"""
    account: Path | None = None
    password_file: Path | None = None
    owner: str | None = None
    cooperative: str | None = None
    network: str = "devnet"
    host: str = "127.0.0.1"
    public_host: str | None = None
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    stake: Annotated[str | None, BeforeValidator(_check_stake)] = None
    kv_budget: Bytes = 2**30
    data_dir: Path | None = None
    store: str | None = None
    metrics_port: Annotated[int | None, Field(ge=0, le=65535)] = None
    metrics_host: str = "127.0.0.1"
    drain_timeout: Seconds = 10.0
    max_chunk_tokens: Annotated[int, Field(ge=1, le=4096)] = 8
    payment_grace: Seconds = 2.0
    orphan_grace: Seconds = 30.0
    idle_grace: Seconds = 1800.0
    first_step_grace: Seconds = 60.0
    client_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """the part of the KV budget that one client, or one payer, may hold"""
    client_sessions: Annotated[int | None, Field(ge=1)] = None
    """how many sessions one client, or one payer, may hold; an eighth of `max_sessions` if unset"""
    expiry_margin: Annotated[int, Field(ge=0)] = 120
    max_sessions: Annotated[int, Field(ge=1)] = 256
    redeem_interval: Annotated[float, Field(gt=0)] = 60.0
    receipt_retention: Annotated[float | None, Field(ge=0)] = None
    """how many seconds receipts are kept; if unset, the network's audit window and grace, and a day"""
    audit_window: Annotated[float | None, Field(ge=0)] = None
    """how many seconds the rows under a receipt are kept; if unset, as long as receipts by the network's parameters"""
    audit_disk: Bytes = 2 * 2**30
    """how many bytes these rows may take; the oldest go first"""
    gas_value: Annotated[int | None, Field(ge=0)] = None
    """what one Wei of gas is worth, in millionths of a base unit of Nectar; nothing on a devnet"""
    announce_ttl: Annotated[float, Field(gt=1, le=180)] = 60.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def span(self) -> Span | None:
        """The blocks asked for; None for `auto`."""
        return None if self.blocks == "auto" else Span.parse(self.blocks)

    @property
    def stake_amount(self) -> Nectar | None:
        return None if self.stake is None else nectar_from_text(self.stake)
