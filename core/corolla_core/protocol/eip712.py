"""EIP-712 hashing of our own fixed structs, by hand.

`eth_account.messages.encode_typed_data` is generic and takes about 0.9 ms; this takes microseconds and is tested
against it. Source: https://eips.ethereum.org/EIPS/eip-712.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from eth_utils.crypto import keccak

from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Address, Hash32, address_bytes

_DOMAIN_TYPEHASH = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")


def word(value: int) -> bytes:
    """A uint as one 32-byte ABI word."""
    if not 0 <= value < 2**256:
        raise InvalidInput(f"not a uint256: {value}")
    return value.to_bytes(32, "big")


def address_word(value: Address) -> bytes:
    return bytes(12) + address_bytes(value)


@dataclass(frozen=True)
class Domain:
    """An EIP-712 domain; vouchers and receipts signed under one are worthless under any other."""

    name: str
    version: str
    chain_id: int
    verifying_contract: Address

    @cached_property
    def separator(self) -> bytes:
        return keccak(
            _DOMAIN_TYPEHASH
            + keccak(text=self.name)
            + keccak(text=self.version)
            + word(self.chain_id)
            + address_word(self.verifying_contract)
        )

    def digest(self, struct_hash: bytes) -> Hash32:
        """What is signed: `keccak(0x1901 ‖ separator ‖ struct_hash)`."""
        return Hash32(keccak(b"\x19\x01" + self.separator + struct_hash))
