// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title What the validators, weighed by their stake, hold of each node
/// @notice Time runs in epochs, each a commit phase and then a reveal phase. A validator, which is a node active in the
/// NodeRegistry with at least `minValidatorStake`, commits to its scores of an epoch while nobody can see those of
/// others, and reveals them in the second phase. Once the epoch is over anyone settles it, node by node.
///
/// Scores are uint16 in 1/65535. For a node with revealed ratings (stake s_i, score w_i), S = Σ s_i:
///
///   score  m = max { w : Σ_{i: w_i ≥ w} s_i > S / 2 }        the stake-weighted median
///   clipped w̄_i = m where w_i > m + maxAbove, else w_i
///   rank   = ⌊ Σ s_i · w̄_i / S ⌋
///
/// That is the consensus weight and the rank of Bittensor's Yuma consensus with κ = 1/2
/// (https://docs.learnbittensor.org/learn/yuma-consensus), but for two things: a strict majority is asked for, so that
/// exactly half of the stake cannot raise a score, and scores up to `maxAbove` over the median are honest noise and
/// stay. A minority of the stake can move neither the median past what the majority said nor the rank above m + maxAbove.
interface IReputationOracle {
    /// @param commitSeconds length of the commit phase
    /// @param revealSeconds length of the reveal phase
    /// @param maxAbove how far above the median a score may lie before it is clipped, in 1/65535
    /// @param minRatings validators that must have rated a node for its score to count
    /// @param minValidatorStake the least stake of a validator
    /// @param minTotalStake the least stake behind a node's ratings together for its score to count
    struct Parameters {
        uint32 commitSeconds;
        uint32 revealSeconds;
        uint16 maxAbove;
        uint8 minRatings;
        uint96 minValidatorStake;
        uint96 minTotalStake;
    }

    /// @notice What was last settled of a node; `epoch` 0 when nothing was.
    /// @param score the stake-weighted median
    /// @param rank the stake-weighted mean of the clipped scores
    /// @param ratings how many validators rated
    /// @param clipped how many of them were clipped
    /// @param stake what stood behind the ratings together
    struct Settled {
        uint16 score;
        uint16 rank;
        uint8 ratings;
        uint8 clipped;
        uint64 epoch;
        uint96 stake;
    }

    enum Phase {
        Commit,
        Reveal
    }

    event ScoresCommitted(uint64 indexed epoch, address indexed validator, bytes32 commitment, uint256 stake);
    event ScoresRevealed(uint64 indexed epoch, address indexed validator, address[] nodes, uint16[] scores);
    /// @notice A rating gave way to one with more stake behind it: a node keeps at most `MAX_RATINGS` an epoch.
    event RatingCrowdedOut(uint64 indexed epoch, address indexed node, uint256 stake);
    event ScoreSettled(
        uint64 indexed epoch,
        address indexed node,
        uint16 score,
        uint16 rank,
        uint256 ratings,
        uint256 clipped,
        uint256 stake
    );
    event ParametersSet(Parameters parameters, uint64 fromEpoch);

    error AddressIsZero();
    error WrongPhase(uint64 epoch, Phase found);
    error NotValidator(address account, uint256 minimum, uint256 stake);
    error AlreadyCommitted(uint64 epoch, address validator);
    error NothingCommitted(uint64 epoch, address validator);
    error AlreadyRevealed(uint64 epoch, address validator);
    error CommitmentMismatch(bytes32 committed, bytes32 revealed);
    error LengthInvalid(uint256 length, uint256 highest);
    error LengthsDiffer(uint256 nodes, uint256 scores);
    /// @notice Nodes must ascend, which rules out rating one twice.
    error NodesNotAscending(address before, address node);
    error SelfRating(address validator);
    error EpochNotOver(uint64 epoch, uint64 current);
    error TooFewRatings(address node, uint256 ratings, uint256 stake);
    /// @notice A parameter outside its hard-coded bounds; governance cannot widen them.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);

    /// @notice Commits the caller's scores of the current epoch; once an epoch, in its commit phase.
    /// @param commitment `keccak256(abi.encode(epoch, validator, keccak256(abi.encode(nodes, scores)), salt))`
    function commit(bytes32 commitment) external;

    /// @notice Reveals what the caller committed this epoch; in the reveal phase. Its weight is the lesser of its stake
    /// now and when it committed.
    /// @param nodes whom it rates, ascending, itself not among them, at most `MAX_NODES`
    function reveal(address[] calldata nodes, uint16[] calldata scores, bytes32 salt) external;

    /// @notice Settles nodes of an epoch that is over. Anyone may; what is settled already, by this epoch or a later
    /// one, is passed over.
    /// @dev At most `MAX_NODES` nodes of at most `MAX_RATINGS` ratings each.
    function settle(uint64 epoch, address[] calldata nodes) external;

    /// @notice Sets the parameters. Governance only, within bounds. Phases change from the next epoch on.
    function setParameters(Parameters calldata parameters_) external;

    /// @notice A node's last settled score, in 1/65535, and its epoch; 0 and 0 when it has none.
    function scoreOf(address node) external view returns (uint16 score, uint64 epoch);

    /// @notice `scoreOf` for many nodes in one call.
    function scoresOf(address[] calldata nodes) external view returns (uint16[] memory scores, uint64[] memory epochs);

    /// @notice All that was last settled of a node.
    function settledOf(address node) external view returns (Settled memory);

    /// @notice How many ratings a node has in an epoch that are not settled yet, and the stake behind them.
    function ratingsOf(uint64 epoch, address node) external view returns (uint256 ratings, uint256 stake);

    /// @notice How often a validator committed, and how often it let the reveal phase pass without revealing.
    function recordOf(address validator) external view returns (uint256 commits, uint256 missed);

    /// @notice A validator's last commitment, the epoch it is for (0 when it never committed) and whether it was revealed:
    /// what a validator that starts again has to know.
    function seatOf(address validator) external view returns (uint64 epoch, bytes32 commitment, bool revealed);

    /// @notice The current epoch, counted from 1, its phase, and when that phase ends (Unix seconds).
    function epochNow() external view returns (uint64 epoch, Phase phase, uint64 until);

    function parameters() external view returns (Parameters memory);
}
