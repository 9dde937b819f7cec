// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

/// @notice A node's statement that blocks `[spanStart, spanEnd)` turned the rows under `inRoot` into those under
/// `outRoot`. Fields in the order of corolla_core/protocol/receipt.py. Times are Unix milliseconds by the node's clock.
/// @param modelRoot root of the model's manifest
/// @param weightRoot SHA-256 Merkle root over the block roots of the span
/// @param numericClass keccak256 of the class's name
/// @param clientNonce chosen afresh by the client for every session it opens at every node
/// @param wire keccak256 of the name of the rows' dtype
/// @param batch sequences computed at once: a row is the hidden states of all of them at one position
/// @param orderRoot keccak256 over the reorderings of the sequences within the chunk, `position ‖ index of each` as words,
/// in the order they happened; zero where there were none
/// @param upstreamReceiptHash the receipt whose `outRoot` is this one's `inRoot`; zero where there is none
/// @param prevReceiptHash the receipt before this one in the session; zero for the first
struct Receipt {
    uint64 chainId;
    uint64 epoch;
    bytes32 modelRoot;
    uint64 spanStart;
    uint64 spanEnd;
    bytes32 weightRoot;
    bytes32 numericClass;
    bytes16 sessionId;
    bytes32 clientNonce;
    uint64 posStart;
    uint64 nPos;
    bytes32 wire;
    uint64 batch;
    bytes32 orderRoot;
    bytes32 inRoot;
    bytes32 outRoot;
    bytes32 upstreamReceiptHash;
    bytes32 prevReceiptHash;
    uint64 tIn;
    uint64 tOut;
}

/// @title Hashing of receipts and of the rows under their roots
/// @notice Mirrors corolla_core/protocol/receipt.py; docs/spec/vectors.json holds both to it.
library ReceiptLib {
    bytes32 internal constant TAG = keccak256("corolla/receipt/v2");

    /// @dev `keccak256(tag ‖ 20 words)`: every field is one word.
    function hash(Receipt calldata receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(TAG, receipt));
    }

    /// @notice Who signed. Reverts with ECDSA's errors for what is no signature, a high-s one included.
    function signer(Receipt calldata receipt, bytes calldata signature) internal pure returns (address) {
        return ECDSA.recover(hash(receipt), signature);
    }

    /// @notice The leaf of one row: `SHA-256(0x00 ‖ session ‖ position ‖ row)`.
    function rowLeaf(bytes16 sessionId, uint64 position, bytes calldata row) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x00), sessionId, position, row));
    }
}
