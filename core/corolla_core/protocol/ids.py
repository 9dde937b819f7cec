"""Named identifiers and their validating constructors."""

from __future__ import annotations

from typing import NewType

from eth_utils.address import is_address, to_checksum_address

from corolla_core.protocol.errors import InvalidInput

Address = NewType("Address", str)
"""An EIP-55 checksummed account address, `0x` and 40 hex digits. A node is named by the address it is paid at."""
Hash32 = NewType("Hash32", bytes)
SessionId = NewType("SessionId", bytes)
"""16 random bytes chosen by the client."""
TrancheId = NewType("TrancheId", bytes)
ModelRoot = NewType("ModelRoot", bytes)
"""32 bytes: the manifest root of one model version."""
PeerId = NewType("PeerId", str)
"""A libp2p peer id in base58."""

ZERO_HASH = Hash32(bytes(32))
ZERO_ADDRESS = Address("0x" + "0" * 40)
SESSION_ID_BYTES = 16


def address(value: object) -> Address:
    """Checksum an address given as text or 20 bytes; InvalidInput if it is neither."""
    if not isinstance(value, (str, bytes)) or not is_address(value):
        raise InvalidInput(f"not an address: {value!r:.80}")
    return Address(to_checksum_address(value))


def address_bytes(value: Address) -> bytes:
    """The 20 bytes of an address."""
    return bytes.fromhex(value[2:])


def hash32(value: object) -> Hash32:
    """Check a 32-byte hash given as bytes or hex text."""
    return Hash32(_fixed(value, 32))


def session_id(value: object) -> SessionId:
    return SessionId(_fixed(value, SESSION_ID_BYTES))


def _fixed(value: object, size: int) -> bytes:
    if isinstance(value, str):
        try:
            value = bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            raise InvalidInput(f"not hex: {value!r:.80}") from None
    if not isinstance(value, (bytes, bytearray, memoryview)) or len(value) != size:
        raise InvalidInput(f"expected {size} bytes, got {value!r:.80}")
    return bytes(value)
