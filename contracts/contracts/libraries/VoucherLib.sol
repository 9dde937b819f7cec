// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice A payer's promise of `cumulative` base units in all to `payee` out of one tranche.
/// @param receiptHead hash of the payee's last receipt, whose chain of receipts the voucher pays for
struct Voucher {
    bytes32 trancheId;
    address payee;
    uint128 cumulative;
    bytes32 receiptHead;
}

/// @title EIP-712 hashing of vouchers
/// @notice Mirrors corolla_core/protocol/voucher.py; docs/spec/vectors.json holds both to it.
library VoucherLib {
    bytes32 internal constant TYPEHASH =
        keccak256("Voucher(bytes32 trancheId,address payee,uint128 cumulative,bytes32 receiptHead)");

    function structHash(Voucher calldata voucher) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(TYPEHASH, voucher.trancheId, voucher.payee, voucher.cumulative, voucher.receiptHead)
        );
    }
}
