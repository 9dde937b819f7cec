"""Contract ABIs: calls to bytes, answers, errors and logs back to values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_utils.abi import (
    event_abi_to_log_topic,
    function_abi_to_4byte_selector,
    get_abi_input_names,
    get_abi_input_types,
    get_abi_output_types,
)

from corolla_core.protocol.errors import ChainError, InvalidInput
from corolla_core.protocol.ids import Hash32, address

CONTRACTS = (
    "NectarToken",
    "NodeRegistry",
    "ModelRegistry",
    "Escrow",
    "Faults",
    "Disputes",
    "JurorPool",
    "ReputationOracle",
    "NectarGovernor",
    "Cooperative",
    "CooperativeFactory",
    "OperatorRegistry",
    "TimelockController",
)
_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
_PANICS = {0x01: "assertion failed", 0x11: "arithmetic overflow", 0x12: "division by zero", 0x32: "index out of range"}


@dataclass(frozen=True, slots=True)
class DecodedEvent:
    """One log of a known event: its Solidity name and its arguments by Solidity name."""

    name: str
    arguments: Mapping[str, Any]


class Abi:
    """One contract's interface. Functions are named, none is overloaded."""

    def __init__(self, name: str, entries: Sequence[dict[str, Any]], bytecode: bytes) -> None:
        self.name = name
        self.bytecode = bytecode
        self._constructor = next((e for e in entries if e["type"] == "constructor"), None)
        self._functions = {e["name"]: e for e in entries if e["type"] == "function"}
        self._events = {event_abi_to_log_topic(e): e for e in entries if e["type"] == "event"}  # type: ignore[arg-type]
        self.errors = {function_abi_to_4byte_selector(e): e for e in entries if e["type"] == "error"}  # type: ignore[arg-type]

    def encode(self, function: str, *arguments: Any) -> bytes:
        """The calldata of a call. Raises InvalidInput when an argument does not fit its type."""
        entry = self._functions[function]
        selector: bytes = function_abi_to_4byte_selector(entry)  # type: ignore[arg-type]
        return selector + _encode(entry, arguments)

    def creation(self, *arguments: Any) -> bytes:
        """The init code that deploys the contract."""
        return self.bytecode + (_encode(self._constructor, arguments) if self._constructor else b"")

    def decode(self, function: str, data: bytes) -> tuple[Any, ...]:
        """What a call returned; structs as tuples, addresses checksummed. Raises ChainError when it does not parse."""
        entry = self._functions[function]
        types = get_abi_output_types(entry)  # type: ignore[arg-type]
        try:
            values = decode(types, data)
        except (DecodingError, OverflowError) as error:
            raise ChainError(f"{self.name}.{function} answered what its interface does not allow: {error}") from None
        return tuple(_clean(value, output) for value, output in zip(values, entry["outputs"], strict=True))

    def decode_log(self, topics: Sequence[bytes], data: bytes) -> DecodedEvent | None:
        """The event of a log; None when this contract has no such event."""
        entry = self._events.get(topics[0]) if topics else None
        if entry is None:
            return None
        indexed = [e for e in entry["inputs"] if e["indexed"]]
        plain = [e for e in entry["inputs"] if not e["indexed"]]
        try:
            values = dict(zip([e["name"] for e in plain], decode([_type(e) for e in plain], data), strict=True))
            for e, topic in zip(indexed, topics[1:], strict=True):
                values[e["name"]] = decode([_type(e)], topic)[0]
        except (DecodingError, ValueError) as error:
            raise ChainError(f"a {entry['name']} log does not parse: {error}") from None
        return DecodedEvent(entry["name"], {e["name"]: _clean(values[e["name"]], e) for e in entry["inputs"]})

    def topic(self, event: str) -> Hash32:
        """What the logs of an event begin with."""
        return next(Hash32(topic) for topic, entry in self._events.items() if entry["name"] == event)

    def event_inputs(self) -> dict[str, list[tuple[str, str]]]:
        """`(argument name, type)` lists by event name."""
        return {e["name"]: [(i["name"], i["type"]) for i in e["inputs"]] for e in self._events.values()}


@cache
def load_abi(name: str) -> Abi:
    """The ABI shipped with the package, one of `CONTRACTS`."""
    raw = json.loads(resources.files("corolla_core.chain").joinpath("abi", f"{name}.json").read_text())
    return Abi(name, raw["abi"], bytes.fromhex(raw["bytecode"].removeprefix("0x")))


def revert_reason(data: bytes) -> str:
    """What a revert's bytes say, e.g. `InsufficientFree(available=3, needed=5)`; errors of all our contracts."""
    selector, body = data[:4], data[4:]
    try:
        if not data:
            return "reverted without a reason"
        if selector == _ERROR_STRING:
            return str(decode(["string"], body)[0])
        if selector == _PANIC:
            code = decode(["uint256"], body)[0]
            return f"panic: {_PANICS.get(code, hex(code))}"
        entry = _all_errors().get(selector)
        if entry is not None:
            types, names = get_abi_input_types(entry), get_abi_input_names(entry)  # type: ignore[arg-type]
            values = decode(types, body)
            shown = (f"{name}={_show(value)}" for name, value in zip(names, values, strict=True))
            return f"{entry['name']}({', '.join(shown)})"
    except (DecodingError, UnicodeDecodeError):
        pass
    return f"unknown error 0x{data[:68].hex()}"


@cache
def _all_errors() -> dict[bytes, dict[str, Any]]:
    return {selector: entry for name in CONTRACTS for selector, entry in load_abi(name).errors.items()}


def _encode(entry: dict[str, Any], arguments: Sequence[Any]) -> bytes:
    try:
        return encode(get_abi_input_types(entry), list(arguments))  # type: ignore[arg-type]
    except (EncodingError, TypeError) as error:
        raise InvalidInput(f"{entry.get('name', 'constructor')}: {error}") from None


def _type(entry: dict[str, Any]) -> str:
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    return f"({','.join(_type(c) for c in entry['components'])}){entry['type'].removeprefix('tuple')}"


def _clean(value: Any, entry: dict[str, Any]) -> Any:
    kind: str = entry["type"]
    if kind.endswith("]"):
        element = {**entry, "type": kind[: kind.rindex("[")]}
        return tuple(_clean(item, element) for item in value)
    if kind == "tuple":
        return tuple(_clean(item, part) for item, part in zip(value, entry["components"], strict=True))
    return address(value) if kind == "address" else value


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return address(value) if isinstance(value, str) and len(value) == 42 and value.startswith("0x") else str(value)
