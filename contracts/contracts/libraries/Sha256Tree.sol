// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title SHA-256 Merkle trees of RFC 9162's shape: an odd last node is promoted unchanged
/// @notice Mirrors corolla_core/protocol/merkle.py; docs/spec/vectors.json holds both to it.
library Sha256Tree {
    /// @dev `SHA-256(0x01 ‖ left ‖ right)`; a leaf's preimage starts with 0x00.
    function hashPair(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }

    /// @notice The root over `leaves[start:end]`, which must be a range of at least one leaf.
    function root(bytes32[] memory leaves, uint256 start, uint256 end) internal pure returns (bytes32) {
        uint256 width = end - start;
        bytes32[] memory level = new bytes32[](width);
        for (uint256 i = 0; i < width; ++i) {
            level[i] = leaves[start + i];
        }
        while (width > 1) {
            uint256 pairs = width / 2;
            for (uint256 i = 0; i < pairs; ++i) {
                level[i] = hashPair(level[2 * i], level[2 * i + 1]);
            }
            if (width % 2 == 1) level[pairs++] = level[width - 1];
            width = pairs;
        }
        return level[0];
    }

    /// @notice Whether `leaf` is at `index` of a tree of `size` leaves with this root.
    /// @dev The index and the size say on which side each sibling stands, and how many there are: a leaf verifies at
    /// one index only. Never reverts.
    function verify(bytes32 root_, bytes32 leaf, uint256 index, uint256 size, bytes32[] calldata siblings)
        internal
        pure
        returns (bool)
    {
        if (index >= size) return false;
        uint256 last = size - 1;
        uint256 used = 0;
        bytes32 node = leaf;
        for (; last > 0; (index, last) = (index >> 1, last >> 1)) {
            bool onLeft = index & 1 == 1;
            if (!onLeft && index == last) continue; // promoted: no sibling at this level
            if (used == siblings.length) return false;
            bytes32 sibling = siblings[used++];
            node = onLeft ? hashPair(sibling, node) : hashPair(node, sibling);
        }
        return used == siblings.length && node == root_;
    }
}
