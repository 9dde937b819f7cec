// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IJurorPool} from "../../interfaces/IJurorPool.sol";

/// @title As many jurors as a test wants
/// @notice For tests only. Each is a contract of its own that joins with what the crowd holds for it.
contract Crowd {
    function join(IERC20 token, IJurorPool pool, uint256 jurors, uint96 stake) external {
        for (uint256 i = 0; i < jurors; ++i) {
            Member member = new Member();
            require(token.transfer(address(member), stake));
            member.join(token, pool, stake);
        }
    }
}

/// @title One juror of a crowd
contract Member {
    function join(IERC20 token, IJurorPool pool, uint96 stake) external {
        token.approve(address(pool), stake);
        pool.join(msg.sender, stake);
    }
}
