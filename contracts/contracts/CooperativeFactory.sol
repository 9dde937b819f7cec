// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ICooperative} from "../interfaces/ICooperative.sol";
import {ICooperativeFactory} from "../interfaces/ICooperativeFactory.sol";
import {IEscrow} from "../interfaces/IEscrow.sol";
import {INodeRegistry} from "../interfaces/INodeRegistry.sol";
import {Cooperative} from "./Cooperative.sol";

/// @title Where cooperatives come from
/// @notice See ICooperativeFactory.
contract CooperativeFactory is ICooperativeFactory {
    // Immutables are named as the constants they are, OpenZeppelin's habit.
    // slither-disable-start naming-convention
    IERC20 public immutable TOKEN;
    INodeRegistry public immutable REGISTRY;
    IEscrow public immutable ESCROW;
    // slither-disable-end naming-convention

    /// @inheritdoc ICooperativeFactory
    mapping(address cooperative => bool) public isCooperative;

    constructor(IERC20 token, INodeRegistry registry, IEscrow escrow) {
        (TOKEN, REGISTRY, ESCROW) = (token, registry, escrow);
    }

    /// @inheritdoc ICooperativeFactory
    function create(ICooperative.Terms calldata terms) external returns (ICooperative cooperative) {
        cooperative = new Cooperative(TOKEN, REGISTRY, ESCROW, terms);
        isCooperative[address(cooperative)] = true;
        emit CooperativeCreated(address(cooperative), terms.node, msg.sender);
    }
}
