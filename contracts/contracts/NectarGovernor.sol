// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Governor} from "@openzeppelin/contracts/governance/Governor.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";
import {GovernorCountingSimple} from "@openzeppelin/contracts/governance/extensions/GovernorCountingSimple.sol";
import {GovernorSettings} from "@openzeppelin/contracts/governance/extensions/GovernorSettings.sol";
import {GovernorTimelockControl} from "@openzeppelin/contracts/governance/extensions/GovernorTimelockControl.sol";
import {GovernorVotes} from "@openzeppelin/contracts/governance/extensions/GovernorVotes.sol";
import {
    GovernorVotesQuorumFraction
} from "@openzeppelin/contracts/governance/extensions/GovernorVotesQuorumFraction.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {Devnet} from "./libraries/Devnet.sol";

/// @title Nectar's holders decide, and the timelock carries it out
/// @notice OpenZeppelin's Governor over delegated Nectar, with bounds on its own settings that no vote can widen: a
/// majority can neither rush a vote past the others nor shut everybody but itself out. Time is counted in blocks, as
/// Nectar's checkpoints are. Votes count as they were when voting began, at least a block after the proposal, and the
/// right to propose as it was a block before: tokens borrowed for a transaction are worth neither.
contract NectarGovernor is
    Governor,
    GovernorSettings,
    GovernorCountingSimple,
    GovernorVotes,
    GovernorVotesQuorumFraction,
    GovernorTimelockControl
{
    /// @notice A setting outside its hard-coded bounds.
    error OutOfBounds(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest);

    /// @notice In blocks of twelve seconds: a day and a week; a block on a devnet.
    uint48 public constant MIN_VOTING_DELAY = 7_200;
    uint48 public constant MAX_VOTING_DELAY = 50_400;
    /// @notice Three days and thirty; two blocks on a devnet.
    uint32 public constant MIN_VOTING_PERIOD = 21_600;
    uint32 public constant MAX_VOTING_PERIOD = 216_000;
    /// @notice A token, so that proposals are not free; a hundredth of the largest supply, so that they stay possible.
    uint256 public constant MIN_THRESHOLD = 1e18;
    uint256 public constant MAX_THRESHOLD = 10_000_000 * 1e18;
    /// @notice Percent of the supply.
    uint256 public constant MIN_QUORUM = 1;
    uint256 public constant MAX_QUORUM = 20;

    /// @param token Nectar, whose delegated balances vote
    /// @param timelock must make this contract its proposer, and let it or anyone execute
    constructor(
        IVotes token,
        TimelockController timelock,
        uint48 votingDelay_,
        uint32 votingPeriod_,
        uint256 threshold,
        uint256 quorumPercent
    )
        Governor("Nectar Governor")
        GovernorSettings(votingDelay_, votingPeriod_, threshold)
        GovernorVotes(token)
        GovernorVotesQuorumFraction(quorumPercent)
        GovernorTimelockControl(timelock)
    {}

    // Where two of the parents define the same, Solidity wants to be told which.

    function state(uint256 proposalId)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (ProposalState)
    {
        return super.state(proposalId);
    }

    function proposalNeedsQueuing(uint256 proposalId)
        public
        view
        override(Governor, GovernorTimelockControl)
        returns (bool)
    {
        return super.proposalNeedsQueuing(proposalId);
    }

    function proposalThreshold() public view override(Governor, GovernorSettings) returns (uint256) {
        return super.proposalThreshold();
    }

    function _setVotingDelay(uint48 value) internal override {
        _check("votingDelay", value, Devnet.isDevnet() ? 1 : MIN_VOTING_DELAY, MAX_VOTING_DELAY);
        super._setVotingDelay(value);
    }

    function _setVotingPeriod(uint32 value) internal override {
        _check("votingPeriod", value, Devnet.isDevnet() ? 2 : MIN_VOTING_PERIOD, MAX_VOTING_PERIOD);
        super._setVotingPeriod(value);
    }

    function _setProposalThreshold(uint256 value) internal override {
        _check("proposalThreshold", value, MIN_THRESHOLD, MAX_THRESHOLD);
        super._setProposalThreshold(value);
    }

    function _updateQuorumNumerator(uint256 value) internal override {
        _check("quorumNumerator", value, MIN_QUORUM, MAX_QUORUM);
        super._updateQuorumNumerator(value);
    }

    function _queueOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) returns (uint48) {
        return super._queueOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _executeOperations(
        uint256 proposalId,
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) {
        super._executeOperations(proposalId, targets, values, calldatas, descriptionHash);
    }

    function _cancel(
        address[] memory targets,
        uint256[] memory values,
        bytes[] memory calldatas,
        bytes32 descriptionHash
    ) internal override(Governor, GovernorTimelockControl) returns (uint256) {
        return super._cancel(targets, values, calldatas, descriptionHash);
    }

    function _executor() internal view override(Governor, GovernorTimelockControl) returns (address) {
        return super._executor();
    }

    function _check(bytes32 parameter, uint256 value, uint256 lowest, uint256 highest) private pure {
        if (value < lowest || value > highest) revert OutOfBounds(parameter, value, lowest, highest);
    }
}
