// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IGovernor} from "@openzeppelin/contracts/governance/IGovernor.sol";
import {IVotes} from "@openzeppelin/contracts/governance/utils/IVotes.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @title Votes and proposes with tokens it has for one transaction
/// @notice For tests only. The lender approves this contract.
contract FlashVoter {
    event Voted(uint256 weight);

    modifier withLoan(IERC20 token, address lender, uint256 amount) {
        require(token.transferFrom(lender, address(this), amount));
        IVotes(address(token)).delegate(address(this));
        _;
        require(token.transfer(lender, amount));
    }

    function vote(IERC20 token, address lender, uint256 amount, IGovernor governor, uint256 proposalId)
        external
        withLoan(token, lender, amount)
    {
        emit Voted(governor.castVote(proposalId, 1));
    }

    function propose(IERC20 token, address lender, uint256 amount, IGovernor governor)
        external
        withLoan(token, lender, amount)
    {
        governor.propose(new address[](1), new uint256[](1), new bytes[](1), "with borrowed tokens");
    }
}
