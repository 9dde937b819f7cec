"""Cumulative payment vouchers and the tranches they draw on (protocol.md section 1)."""

from __future__ import annotations

from dataclasses import dataclass

from eth_utils.crypto import keccak

from corolla_core.protocol.eip712 import Domain, address_word, word
from corolla_core.protocol.errors import InvalidInput
from corolla_core.protocol.ids import Address, Hash32, TrancheId
from corolla_core.protocol.signature import Signer, recover
from corolla_core.protocol.units import MAX_UINT128, Nectar

ESCROW_NAME, ESCROW_VERSION = "Corolla Escrow", "1"
_VOUCHER_TYPEHASH = keccak(text="Voucher(bytes32 trancheId,address payee,uint128 cumulative,bytes32 receiptHead)")


def escrow_domain(chain_id: int, escrow: Address) -> Domain:
    return Domain(ESCROW_NAME, ESCROW_VERSION, chain_id, escrow)


def tranche_id(chain_id: int, escrow: Address, payer: Address, nonce: int) -> TrancheId:
    """`keccak(abi.encode(chainId, escrow, payer, nonce))`."""
    return TrancheId(keccak(word(chain_id) + address_word(escrow) + address_word(payer) + word(nonce)))


@dataclass(frozen=True, slots=True)
class Voucher:
    """A payer's promise of `cumulative` base units in all to `payee` out of one tranche."""

    tranche_id: TrancheId
    payee: Address
    cumulative: Nectar
    receipt_head: Hash32

    def __post_init__(self) -> None:
        if not 0 <= self.cumulative <= MAX_UINT128:
            raise InvalidInput(f"not a uint128: {self.cumulative}")
        if len(self.tranche_id) != 32 or len(self.receipt_head) != 32:
            raise InvalidInput("tranche_id and receipt_head are 32 bytes")

    def struct_hash(self) -> bytes:
        return keccak(
            _VOUCHER_TYPEHASH + self.tranche_id + address_word(self.payee) + word(self.cumulative) + self.receipt_head
        )

    def digest(self, domain: Domain) -> Hash32:
        return domain.digest(self.struct_hash())

    def sign(self, domain: Domain, signer: Signer) -> SignedVoucher:
        return SignedVoucher(self, signer.sign(self.digest(domain)))


@dataclass(frozen=True, slots=True)
class SignedVoucher:
    voucher: Voucher
    signature: bytes

    def signer(self, domain: Domain) -> Address:
        """The account that signed. Raises InvalidSignature."""
        return recover(self.voucher.digest(domain), self.signature)
