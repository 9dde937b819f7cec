// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice Two locks in one storage slot. `newer` never ends before `older`.
struct Locks {
    uint96 olderAmount;
    uint32 olderUntil;
    uint96 newerAmount;
    uint32 newerUntil;
}

/// @title Time locks on an amount, in bounded storage
/// @notice However many locks are added, two entries are kept: later locks join the newer one while the older one
/// lasts. With locks of one length W, each unit is locked for at least W and at most 2 W.
library StakeLocks {
    /// @notice The amount locked at `time` and when the last of it is released (0 when nothing is locked).
    function lockedAt(Locks memory locks, uint256 time) internal pure returns (uint256 amount, uint64 until) {
        if (locks.olderUntil > time) (amount, until) = (locks.olderAmount, locks.olderUntil);
        if (locks.newerUntil > time) (amount, until) = (amount + locks.newerAmount, locks.newerUntil);
    }

    /// @notice `locks` with `amount` more locked until `until` or later, and expired entries dropped.
    /// @dev The caller bounds the total below 2**96.
    function add(Locks memory locks, uint96 amount, uint32 until, uint256 time)
        internal
        pure
        returns (Locks memory)
    {
        if (locks.newerUntil <= time) return Locks(0, 0, amount, until);
        if (until <= locks.newerUntil) {
            locks.newerAmount += amount;
        } else if (locks.olderUntil <= time) {
            return Locks(locks.newerAmount, locks.newerUntil, amount, until);
        } else {
            (locks.newerAmount, locks.newerUntil) = (locks.newerAmount + amount, until);
        }
        return locks;
    }
}
