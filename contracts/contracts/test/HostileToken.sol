// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";

/// @title A token that calls whom it likes in the middle of a transfer
/// @notice For tests only. When armed, every transfer runs `data` on `target` as `agent` would, once, and remembers
/// what came of it.
contract HostileToken is ERC20, ERC20Burnable {
    Agent public agent;
    address private _target;
    bytes private _data;
    bool public attempted;
    bool public succeeded;
    bytes public outcome;

    constructor() ERC20("Hostile", "HSTL") {
        agent = new Agent();
        _mint(msg.sender, 1e27);
    }

    function arm(address target, bytes calldata data) external {
        (_target, _data, attempted, succeeded) = (target, data, false, false);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (_target != address(0) && !attempted) {
            attempted = true;
            (succeeded, outcome) = agent.act(_target, _data);
        }
    }
}

/// @title An account made of code: it does what it is told
contract Agent {
    function act(address target, bytes calldata data) external returns (bool, bytes memory) {
        return target.call(data);
    }
}
