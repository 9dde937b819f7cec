// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Median, Rating} from "../libraries/Median.sol";

/// @title The consensus of ratings that are given, not kept
/// @notice For tests only.
contract MedianHarness {
    function consensus(Rating[] memory ratings, uint16 maxAbove)
        external
        pure
        returns (uint16 score, uint16 rank, uint256 clipped)
    {
        uint256 stake = Median.total(ratings);
        score = Median.weighted(ratings, stake);
        (rank, clipped) = Median.clippedMean(ratings, stake, score, maxAbove);
    }
}
