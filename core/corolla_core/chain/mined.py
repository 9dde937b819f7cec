"""What a mined transaction left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corolla_core.chain.rpc import hex_bytes, hex_hash, hex_int
from corolla_core.protocol.errors import ChainError, InvalidInput
from corolla_core.protocol.ids import Address, Hash32, address
from corolla_core.protocol.units import Wei


@dataclass(frozen=True, slots=True)
class Log:
    """One event as the chain keeps it."""

    address: Address
    topics: tuple[Hash32, ...]
    data: bytes
    block_number: int
    block_hash: Hash32
    index: int
    tx_hash: Hash32


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction that was mined and did not revert."""

    tx_hash: Hash32
    block_number: int
    block_hash: Hash32
    gas_used: int
    fee: Wei
    contract: Address | None
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class MinedReceipt:
    """A mined transaction and whether it `succeeded` or reverted."""

    mined: Mined
    succeeded: bool


def parse_log(raw: Mapping[str, Any]) -> Log:
    """Raises ChainError when an endpoint's log does not parse."""
    try:
        return Log(
            address=address(raw["address"]),
            topics=tuple(hex_hash(topic) for topic in raw["topics"]),
            data=hex_bytes(raw["data"]),
            block_number=hex_int(raw["blockNumber"]),
            block_hash=hex_hash(raw["blockHash"]),
            index=hex_int(raw["logIndex"]),
            tx_hash=hex_hash(raw["transactionHash"]),
        )
    except (InvalidInput, LookupError, TypeError, AttributeError) as error:
        raise ChainError(f"the endpoint sent a malformed log: {error!r}") from None


def parse_logs(answer: object) -> list[Log]:
    """What an endpoint answers to `eth_getLogs`. Raises ChainError when that does not parse."""
    if not isinstance(answer, list):
        raise ChainError(f"the endpoint sent {answer!r:.60} for logs")
    return [parse_log(raw) for raw in answer]


def parse_receipt(raw: Mapping[str, Any]) -> MinedReceipt:
    """Raises ChainError when an endpoint's receipt does not parse."""
    try:
        gas_used = hex_int(raw["gasUsed"])
        created = raw.get("contractAddress")
        mined = Mined(
            tx_hash=hex_hash(raw["transactionHash"]),
            block_number=hex_int(raw["blockNumber"]),
            block_hash=hex_hash(raw["blockHash"]),
            gas_used=gas_used,
            fee=Wei(gas_used * hex_int(raw.get("effectiveGasPrice", "0x0"))),
            contract=None if created is None else address(created),
            logs=tuple(parse_log(log) for log in raw["logs"]),
        )
        return MinedReceipt(mined, hex_int(raw["status"]) != 0)
    except (InvalidInput, LookupError, TypeError, AttributeError) as error:
        raise ChainError(f"the endpoint sent a malformed receipt: {error!r}") from None
