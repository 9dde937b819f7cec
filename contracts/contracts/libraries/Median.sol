// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice One validator's score of a node, in 1/65535, and the stake behind it.
struct Rating {
    uint96 stake;
    uint16 score;
}

/// @title Stake-weighted median and what is left of scores far above it
/// @notice The formulas are in IReputationOracle. Work is quadratic in the ratings, which the caller bounds.
library Median {
    function total(Rating[] memory ratings) internal pure returns (uint256 stake) {
        for (uint256 i = 0; i < ratings.length; ++i) stake += ratings[i].stake;
    }

    /// @notice The highest score that more than half of the stake gave or exceeded.
    /// @dev Sorts `ratings` in place, highest score first. Needs at least one rating, and a stake above zero.
    function weighted(Rating[] memory ratings, uint256 stake) internal pure returns (uint16) {
        _sort(ratings);
        uint256 i = 0;
        uint256 above = ratings[0].stake;
        while (2 * above <= stake) above += ratings[++i].stake;
        return ratings[i].score;
    }

    /// @notice The stake-weighted mean, rounded down, of the scores with those above `median + maxAbove` set to
    /// `median`, and how many those are.
    function clippedMean(Rating[] memory ratings, uint256 stake, uint16 median, uint16 maxAbove)
        internal
        pure
        returns (uint16 mean, uint256 clipped)
    {
        uint256 highest = uint256(median) + maxAbove;
        uint256 sum = 0;
        for (uint256 i = 0; i < ratings.length; ++i) {
            uint256 score = ratings[i].score;
            if (score > highest) (score, clipped) = (median, clipped + 1);
            sum += score * ratings[i].stake;
        }
        mean = uint16(sum / stake);
    }

    /// @dev By insertion: there are few.
    function _sort(Rating[] memory ratings) private pure {
        for (uint256 i = 1; i < ratings.length; ++i) {
            Rating memory moving = ratings[i];
            uint256 at = i;
            while (at > 0 && ratings[at - 1].score < moving.score) {
                ratings[at] = ratings[at - 1];
                --at;
            }
            ratings[at] = moving;
        }
    }
}
