// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Locks, StakeLocks} from "../libraries/StakeLocks.sol";

/// @title Stake locks under a clock of the test's own
/// @notice For tests only.
contract LocksHarness {
    using StakeLocks for Locks;

    struct Step {
        uint32 time;
        uint96 amount;
        uint32 until;
    }

    /// @notice Adds the locks one after the other; returns what is locked at each probe time after each step.
    function run(Step[] calldata steps, uint32[][] calldata probes) external pure returns (uint256[][] memory locked) {
        Locks memory locks;
        locked = new uint256[][](steps.length);
        for (uint256 i = 0; i < steps.length; ++i) {
            locks = locks.add(steps[i].amount, steps[i].until, steps[i].time);
            locked[i] = new uint256[](probes[i].length);
            for (uint256 j = 0; j < probes[i].length; ++j) {
                (locked[i][j],) = locks.lockedAt(probes[i][j]);
            }
        }
    }
}
