"""secp256k1 signatures over 32-byte digests, in the 65-byte `r ‖ s ‖ v` form the EVM's ecrecover checks.

Raw coincurve: 43 µs to sign and 63 µs to recover, against about 1 ms through eth-account's generic path.
"""

from __future__ import annotations

from functools import lru_cache

from coincurve import PrivateKey, PublicKey
from eth_utils.crypto import keccak

from corolla_core.protocol.errors import InvalidInput, InvalidSignature
from corolla_core.protocol.ids import Address, Hash32, address

SIGNATURE_BYTES = 65
_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class Signer:
    """A secp256k1 key that signs digests. `repr` never shows the secret."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise InvalidInput("a private key is 32 bytes")
        try:
            self._key = PrivateKey(secret)
        except ValueError:
            raise InvalidInput("not a valid secp256k1 private key") from None
        self.address: Address = _address_of(self._key.public_key)

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    @property
    def secret(self) -> bytes:
        secret: bytes = self._key.secret
        return secret

    def sign(self, digest: Hash32) -> bytes:
        """65 bytes, low s, v in {27, 28}."""
        raw: bytes = self._key.sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes([raw[64] + 27])


def recover(digest: Hash32, signature: bytes) -> Address:
    """The account that signed `digest`. Raises InvalidSignature for any malformed or high-s signature (EIP-2)."""
    if len(signature) != SIGNATURE_BYTES or signature[64] not in (27, 28):
        raise InvalidSignature("a signature is 65 bytes with v 27 or 28")
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        raise InvalidSignature("high-s signature")
    try:
        key = PublicKey.from_signature_and_message(signature[:64] + bytes([signature[64] - 27]), digest, hasher=None)
    except Exception as error:  # coincurve raises bare Exception for points off the curve
        raise InvalidSignature(f"unrecoverable signature: {error}") from None
    return _address_of(key)


def _address_of(key: PublicKey) -> Address:
    return _checksum(keccak(key.format(compressed=False)[1:])[12:])


@lru_cache(maxsize=4096)
def _checksum(raw: bytes) -> Address:
    return address(raw)
