// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Manifest, ManifestLib} from "../libraries/ManifestLib.sol";
import {Receipt, ReceiptLib} from "../libraries/ReceiptLib.sol";
import {Sha256Tree} from "../libraries/Sha256Tree.sol";
import {SumNode, SumTree} from "../libraries/SumTree.sol";
import {Voucher, VoucherLib} from "../libraries/VoucherLib.sol";

/// @title The protocol's pure functions, laid open to the shared vectors
/// @notice For tests only; not deployed and not exported.
contract ProtocolHarness {
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
        return ReceiptLib.hash(receipt);
    }

    function rowLeaf(bytes16 sessionId, uint64 position, bytes calldata row) external pure returns (bytes32) {
        return ReceiptLib.rowLeaf(sessionId, position, row);
    }

    function merkleRoot(bytes32[] calldata leaves) external pure returns (bytes32) {
        return Sha256Tree.root(leaves, 0, leaves.length);
    }

    function verifyMerkle(bytes32 root, bytes32 leaf, uint256 index, uint256 size, bytes32[] calldata siblings)
        external
        pure
        returns (bool)
    {
        return Sha256Tree.verify(root, leaf, index, size, siblings);
    }

    function manifestRoot(Manifest calldata manifest, bytes32[] calldata blockRoots) external pure returns (bytes32) {
        return ManifestLib.root(manifest, blockRoots);
    }

    function weightRoot(bytes32[] calldata blockRoots, uint256 start, uint256 end) external pure returns (bytes32) {
        return Sha256Tree.root(blockRoots, start, end);
    }
}
