// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

/// @notice A growing list of weights that can be read as it was at any moment that was frozen.
/// @param moment what changes are filed under; rises when a moment is frozen
/// @param leaves how many weights there are; leaf indices start at 1
/// @param sums Fenwick nodes: node `i` holds the sum of the leaves in `(i - lowbit(i), i]`
struct Tree {
    uint64 moment;
    uint32 leaves;
    mapping(uint256 node => Checkpoints.Trace160) sums;
}

/// @title A Fenwick tree of stakes with a memory
/// @notice Appending, changing and finding take O(log leaves) nodes. A frozen moment is never changed by what comes
/// after it. See docs/adr/0031-jurors-are-drawn-from-a-tree-with-a-memory.md.
library StakeTree {
    using Checkpoints for Checkpoints.Trace160;

    /// @notice Adds a leaf.
    function append(Tree storage tree, uint96 weight) internal returns (uint32 leaf) {
        leaf = ++tree.leaves;
        uint256 sum = weight;
        uint256 first = leaf - _lowbit(leaf);
        for (uint256 node = leaf - 1; node > first; node -= _lowbit(node)) sum += tree.sums[node].latest();
        _file(tree, leaf, sum);
    }

    /// @notice Changes a leaf's weight from `before` to `weight`.
    function change(Tree storage tree, uint32 leaf, uint96 before, uint96 weight) internal {
        for (uint256 node = leaf; node <= tree.leaves; node += _lowbit(node)) {
            _file(tree, node, uint256(tree.sums[node].latest()) + weight - before);
        }
    }

    /// @notice Freezes the weights as they are now.
    function freeze(Tree storage tree) internal returns (uint64 moment) {
        moment = tree.moment++;
    }

    /// @notice The sum of the first `leaves` weights at a frozen moment.
    function sumAt(Tree storage tree, uint64 moment, uint32 leaves) internal view returns (uint256 sum) {
        for (uint256 node = leaves; node > 0; node -= _lowbit(node)) {
            sum += tree.sums[node].upperLookupRecent(moment);
        }
    }

    /// @notice The leaf that `target` falls on when the weights are laid side by side.
    /// @param leaves how many there were at the moment
    /// @param target less than `sumAt(moment, leaves)`
    function find(Tree storage tree, uint64 moment, uint32 leaves, uint256 target)
        internal
        view
        returns (uint32 leaf)
    {
        uint256 passed = 0;
        for (uint256 step = 1 << Math.log2(leaves); step > 0; step >>= 1) {
            uint256 node = passed + step;
            if (node > leaves) continue;
            uint256 sum = tree.sums[node].upperLookupRecent(moment);
            if (sum > target) continue;
            target -= sum;
            passed = node;
        }
        return uint32(passed + 1);
    }

    function _file(Tree storage tree, uint256 node, uint256 sum) private {
        // The sum before and the sum now need no comparing: both are known here.
        // slither-disable-next-line unused-return
        tree.sums[node].push(tree.moment, uint160(sum));
    }

    function _lowbit(uint256 node) private pure returns (uint256) {
        return node & (~node + 1);
    }
}
