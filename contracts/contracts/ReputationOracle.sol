// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {IReputationOracle} from "../interfaces/IReputationOracle.sol";
import {Devnet} from "./libraries/Devnet.sol";
import {Median, Rating} from "./libraries/Median.sol";

/// @title Scores of nodes by their validators
/// @notice See IReputationOracle.
contract ReputationOracle is IReputationOracle, Ownable {
    /// @dev Epoch `epoch` and all after it start every `commitSeconds + revealSeconds` from `start`.
    struct Calendar {
        uint64 epoch;
        uint64 start;
        uint32 commitSeconds;
        uint32 revealSeconds;
    }

    /// @dev A validator's last commitment and its record.
    struct Seat {
        bytes32 commitment;
        uint96 stake;
        uint64 epoch;
        uint32 commits;
        uint32 reveals;
        bool revealed;
    }

    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-start naming-convention

    uint32 public constant MAX_PHASE = 7 days;
    uint16 public constant HIGHEST_MAX_ABOVE = 16_383;
    uint96 public constant MAX_VALIDATOR_STAKE = 1_000_000 * 1e18;
    uint96 public constant MAX_TOTAL_STAKE = 100_000_000 * 1e18;
    /// @notice How many validators' ratings a node keeps an epoch: those with the most stake.
    uint256 public constant MAX_RATINGS = 32;
    /// @notice How many nodes one reveal or one settlement may name.
    uint256 public constant MAX_NODES = 64;
    /// @notice The shortest phase: an hour, to outlast an RPC outage; a second on a devnet.
    uint32 public immutable MIN_PHASE;
    /// @notice The fewest ratings that governance may let count: three; one on a devnet.
    uint8 public immutable LEAST_MIN_RATINGS;
    INodeRegistry public immutable REGISTRY;

    // slither-disable-end naming-convention

    Parameters private _parameters;
    /// @dev `_next` takes over when its start has come.
    Calendar private _calendar;
    Calendar private _next;
    mapping(address validator => Seat) private _seats;
    mapping(uint64 epoch => mapping(address node => Rating[])) private _ratings;
    mapping(address node => Settled) private _settled;

    /// @param registry says who is a validator: a node active there, with its stake
    /// @param governance the timelock
    constructor(INodeRegistry registry, address governance, Parameters memory initial) Ownable(governance) {
        if (address(registry) == address(0)) revert AddressIsZero();
        REGISTRY = registry;
        (MIN_PHASE, LEAST_MIN_RATINGS) = Devnet.isDevnet() ? (1, 1) : (1 hours, 3);
        _setParameters(initial);
        _calendar = Calendar(1, uint64(block.timestamp), initial.commitSeconds, initial.revealSeconds);
        emit ParametersSet(initial, 1);
    }

    // Phases are at least an hour and compared with the block's time, which a proposer moves by seconds at most.
    // slither-disable-start timestamp

    /// @inheritdoc IReputationOracle
    function commit(bytes32 commitment) external {
        (uint64 epoch, Phase phase,) = epochNow();
        if (phase != Phase.Commit) revert WrongPhase(epoch, phase);
        uint256 stake = _validatorStake(msg.sender);
        Seat storage seat = _seats[msg.sender];
        // An epoch is a count, not a time or a balance that one could just miss.
        // slither-disable-next-line incorrect-equality
        if (seat.epoch == epoch) revert AlreadyCommitted(epoch, msg.sender);
        (seat.commitment, seat.stake, seat.epoch, seat.revealed) = (commitment, uint96(stake), epoch, false);
        ++seat.commits;
        emit ScoresCommitted(epoch, msg.sender, commitment, stake);
    }

    /// @inheritdoc IReputationOracle
    function reveal(address[] calldata nodes, uint16[] calldata scores, bytes32 salt) external {
        (uint64 epoch, Phase phase,) = epochNow();
        if (phase != Phase.Reveal) revert WrongPhase(epoch, phase);
        _checkLength(nodes.length);
        if (nodes.length != scores.length) revert LengthsDiffer(nodes.length, scores.length);
        Seat storage seat = _seats[msg.sender];
        if (seat.epoch != epoch) revert NothingCommitted(epoch, msg.sender);
        if (seat.revealed) revert AlreadyRevealed(epoch, msg.sender);
        bytes32 revealed =
            keccak256(abi.encode(epoch, msg.sender, keccak256(abi.encode(nodes, scores)), salt));
        if (revealed != seat.commitment) revert CommitmentMismatch(seat.commitment, revealed);
        uint96 stake = uint96(Math.min(seat.stake, _validatorStake(msg.sender)));
        seat.revealed = true;
        ++seat.reveals;
        address before = address(0);
        for (uint256 i = 0; i < nodes.length; ++i) {
            address node = nodes[i];
            if (node <= before) revert NodesNotAscending(before, node);
            if (node == msg.sender) revert SelfRating(msg.sender);
            before = node;
            _rate(epoch, node, Rating(stake, scores[i]));
        }
        emit ScoresRevealed(epoch, msg.sender, nodes, scores);
    }

    /// @inheritdoc IReputationOracle
    function settle(uint64 epoch, address[] calldata nodes) external {
        (uint64 current,,) = epochNow();
        if (epoch >= current) revert EpochNotOver(epoch, current);
        _checkLength(nodes.length);
        Parameters memory rules = _parameters;
        for (uint256 i = 0; i < nodes.length; ++i) {
            if (epoch > _settled[nodes[i]].epoch) _settle(epoch, nodes[i], rules);
        }
    }

    /// @inheritdoc IReputationOracle
    function setParameters(Parameters calldata parameters_) external onlyOwner {
        (uint64 epoch,,) = epochNow();
        Calendar memory running = _running();
        uint64 ends = running.start + (epoch - running.epoch + 1) * _length(running);
        _setParameters(parameters_);
        _calendar = running;
        _next = Calendar(epoch + 1, ends, parameters_.commitSeconds, parameters_.revealSeconds);
        emit ParametersSet(parameters_, epoch + 1);
    }

    /// @inheritdoc IReputationOracle
    function scoreOf(address node) external view returns (uint16 score, uint64 epoch) {
        Settled storage settled = _settled[node];
        return (settled.score, settled.epoch);
    }

    /// @inheritdoc IReputationOracle
    function scoresOf(address[] calldata nodes)
        external
        view
        returns (uint16[] memory scores, uint64[] memory epochs)
    {
        (scores, epochs) = (new uint16[](nodes.length), new uint64[](nodes.length));
        for (uint256 i = 0; i < nodes.length; ++i) {
            Settled storage settled = _settled[nodes[i]];
            (scores[i], epochs[i]) = (settled.score, settled.epoch);
        }
    }

    /// @inheritdoc IReputationOracle
    function settledOf(address node) external view returns (Settled memory) {
        return _settled[node];
    }

    /// @inheritdoc IReputationOracle
    function ratingsOf(uint64 epoch, address node) external view returns (uint256 ratings, uint256 stake) {
        Rating[] storage found = _ratings[epoch][node];
        ratings = found.length;
        for (uint256 i = 0; i < ratings; ++i) stake += found[i].stake;
    }

    /// @inheritdoc IReputationOracle
    function recordOf(address validator) external view returns (uint256 commits, uint256 missed) {
        (uint64 epoch,,) = epochNow();
        Seat storage seat = _seats[validator];
        // A commitment of the current epoch, a count, can still be revealed.
        // slither-disable-next-line incorrect-equality
        uint256 pending = seat.epoch == epoch && !seat.revealed ? 1 : 0;
        return (seat.commits, seat.commits - seat.reveals - pending);
    }

    /// @inheritdoc IReputationOracle
    function seatOf(address validator) external view returns (uint64 epoch, bytes32 commitment, bool revealed) {
        Seat storage seat = _seats[validator];
        return (seat.epoch, seat.commitment, seat.revealed);
    }

    /// @inheritdoc IReputationOracle
    function parameters() external view returns (Parameters memory) {
        return _parameters;
    }

    /// @inheritdoc IReputationOracle
    function epochNow() public view returns (uint64 epoch, Phase phase, uint64 until) {
        Calendar memory running = _running();
        uint64 length = _length(running);
        // The start of an epoch: whole lengths only.
        // slither-disable-start divide-before-multiply
        uint64 passed = (uint64(block.timestamp) - running.start) / length;
        uint64 start = running.start + passed * length;
        // slither-disable-end divide-before-multiply
        uint64 reveals = start + running.commitSeconds;
        epoch = running.epoch + passed;
        return block.timestamp < reveals ? (epoch, Phase.Commit, reveals) : (epoch, Phase.Reveal, start + length);
    }

    /// @dev Adds a rating. When a node has all it can keep, the one with the least stake gives way, so that nobody
    /// crowds the others out with many small validators.
    function _rate(uint64 epoch, address node, Rating memory rating) private {
        Rating[] storage ratings = _ratings[epoch][node];
        uint256 count = ratings.length;
        if (count < MAX_RATINGS) {
            ratings.push(rating);
            return;
        }
        (uint256 least, uint96 stake) = (0, ratings[0].stake);
        for (uint256 i = 1; i < count; ++i) {
            if (ratings[i].stake < stake) (least, stake) = (i, ratings[i].stake);
        }
        if (stake < rating.stake) ratings[least] = rating;
        emit RatingCrowdedOut(epoch, node, Math.min(stake, rating.stake));
    }

    function _settle(uint64 epoch, address node, Parameters memory rules) private {
        Rating[] memory ratings = _ratings[epoch][node];
        uint256 stake = Median.total(ratings);
        if (ratings.length < rules.minRatings || stake < rules.minTotalStake) {
            revert TooFewRatings(node, ratings.length, stake);
        }
        uint16 score = Median.weighted(ratings, stake);
        (uint16 rank, uint256 clipped) = Median.clippedMean(ratings, stake, score, rules.maxAbove);
        _settled[node] = Settled({
            score: score,
            rank: rank,
            ratings: uint8(ratings.length),
            clipped: uint8(clipped),
            epoch: epoch,
            stake: uint96(stake)
        });
        delete _ratings[epoch][node];
        emit ScoreSettled(epoch, node, score, rank, ratings.length, clipped, stake);
    }

    function _setParameters(Parameters memory given) private {
        _check("commitSeconds", given.commitSeconds, MIN_PHASE, MAX_PHASE);
        _check("revealSeconds", given.revealSeconds, MIN_PHASE, MAX_PHASE);
        _check("maxAbove", given.maxAbove, 0, HIGHEST_MAX_ABOVE);
        _check("minRatings", given.minRatings, LEAST_MIN_RATINGS, MAX_RATINGS);
        _check("minValidatorStake", given.minValidatorStake, 1, MAX_VALIDATOR_STAKE);
        _check("minTotalStake", given.minTotalStake, 1, MAX_TOTAL_STAKE);
        _parameters = given;
    }

    function _running() private view returns (Calendar memory) {
        return _next.start != 0 && block.timestamp >= _next.start ? _next : _calendar;
    }

    function _validatorStake(address account) private view returns (uint256 stake) {
        stake = REGISTRY.isActive(account) ? REGISTRY.activeStake(account) : 0;
        uint256 minimum = _parameters.minValidatorStake;
        if (stake < minimum) revert NotValidator(account, minimum, stake);
    }

    // slither-disable-end timestamp

    function _length(Calendar memory calendar) private pure returns (uint64) {
        return uint64(calendar.commitSeconds) + calendar.revealSeconds;
    }

    function _checkLength(uint256 length) private pure {
        if (length == 0 || length > MAX_NODES) revert LengthInvalid(length, MAX_NODES);
    }

    function _check(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest) private pure {
        if (value < lowest || value > highest) revert OutOfBounds(parameter, value, lowest, highest);
    }
}
