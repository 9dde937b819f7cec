// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SumNode, SumTree} from "../libraries/SumTree.sol";
import {Voucher, VoucherLib} from "../libraries/VoucherLib.sol";

/// @title The protocol's pure functions, laid open to the shared vectors
/// @notice For tests only; not deployed and not exported.
contract ProtocolHarness {
    /// @notice Receipt fields in the order of corolla_core/protocol/receipt.py.
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
        bytes32 inRoot;
        bytes32 outRoot;
        bytes32 upstreamReceiptHash;
        bytes32 prevReceiptHash;
        uint64 tIn;
        uint64 tOut;
    }

    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    function domainSeparator(string calldata name, string calldata version, uint256 chainId, address verifyingContract)
        public
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encode(
                DOMAIN_TYPEHASH, keccak256(bytes(name)), keccak256(bytes(version)), chainId, verifyingContract
            )
        );
    }

    function structHash(Voucher calldata voucher) external pure returns (bytes32) {
        return VoucherLib.structHash(voucher);
    }

    function digest(bytes32 separator, Voucher calldata voucher) external pure returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(separator, VoucherLib.structHash(voucher));
    }

    function recover(bytes32 hash, bytes calldata signature) external pure returns (address) {
        return ECDSA.recover(hash, signature);
    }

    function trancheId(uint256 chainId, address escrow, address payer, uint256 nonce) external pure returns (bytes32) {
        return keccak256(abi.encode(chainId, escrow, payer, nonce));
    }

    function hashLeaf(address payee, uint128 cap) external pure returns (SumNode memory) {
        return SumTree.hashLeaf(payee, cap);
    }

    function hashPair(SumNode calldata left, SumNode calldata right) external pure returns (bytes32) {
        return SumTree.hashPair(left.hash, left.sum, right.hash, right.sum);
    }

    function verify(SumNode calldata root, address payee, uint128 cap, uint256 index, SumNode[] calldata siblings)
        external
        pure
        returns (bool)
    {
        return SumTree.verify(root.hash, root.sum, payee, cap, index, siblings);
    }

    function receiptHash(Receipt calldata receipt) external pure returns (bytes32) {
        return keccak256(abi.encode(keccak256("corolla/receipt/v1"), receipt));
    }

    function rowLeaf(bytes16 sessionId, uint64 position, bytes calldata row) external pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x00), sessionId, position, row));
    }

    /// @notice The root that a branch of (sibling is on the left, sibling) pairs leads to, RFC 9162 hashing.
    function merkleRoot(bytes32 leaf, bool[] calldata onLeft, bytes32[] calldata siblings)
        external
        pure
        returns (bytes32 node)
    {
        node = leaf;
        for (uint256 i = 0; i < siblings.length; ++i) {
            node = onLeft[i]
                ? sha256(abi.encodePacked(bytes1(0x01), siblings[i], node))
                : sha256(abi.encodePacked(bytes1(0x01), node, siblings[i]));
        }
    }
}
