// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice A node of a Merkle-sum tree: its hash and the sum of the caps below it.
struct SumNode {
    bytes32 hash;
    uint128 sum;
}

/// @title Merkle-sum trees over (payee, cap) leaves
/// @notice Mirrors corolla_core/protocol/sumtree.py byte for byte; docs/spec/vectors.json holds both to it.
/// @dev Both child sums are inside a node's hash and the addition is checked: a branch that verifies against
/// (root, total) shows that the caps of all leaves that verify add up to at most `total`, whoever built the tree.
library SumTree {
    uint256 internal constant MAX_DEPTH = 32;

    /// @dev `keccak256(0x00 ‖ payee ‖ cap)`, 37 bytes; a node's preimage starts with 0x01 and has 97.
    function hashLeaf(address payee, uint128 cap) internal pure returns (SumNode memory) {
        return SumNode(keccak256(abi.encodePacked(bytes1(0x00), payee, cap)), cap);
    }

    /// @dev `keccak256(0x01 ‖ hashL ‖ sumL ‖ hashR ‖ sumR)`.
    function hashPair(bytes32 leftHash, uint128 leftSum, bytes32 rightHash, uint128 rightSum)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encodePacked(bytes1(0x01), leftHash, leftSum, rightHash, rightSum));
    }

    /// @notice Whether leaf `(payee, cap)` is at `index` of the tree with the given root hash and sum.
    /// @dev Never reverts: a sum that leaves uint128 is simply not a proof.
    function verify(
        bytes32 root,
        uint128 total,
        address payee,
        uint128 cap,
        uint256 index,
        SumNode[] calldata siblings
    ) internal pure returns (bool) {
        uint256 depth = siblings.length;
        if (depth > MAX_DEPTH || index >> depth != 0) return false;
        bytes32 hash = keccak256(abi.encodePacked(bytes1(0x00), payee, cap));
        uint128 sum = cap;
        for (uint256 level = 0; level < depth; ++level) {
            SumNode calldata sibling = siblings[level];
            uint256 added = uint256(sum) + sibling.sum;
            if (added > type(uint128).max) return false;
            hash = (index >> level) & 1 == 0
                ? hashPair(hash, sum, sibling.hash, sibling.sum)
                : hashPair(sibling.hash, sibling.sum, hash, sum);
            sum = uint128(added);
        }
        return hash == root && sum == total;
    }
}
