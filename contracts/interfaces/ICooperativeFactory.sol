// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ICooperative} from "./ICooperative.sol";

/// @title Where cooperatives come from
/// @notice Whoever is asked to deposit in a cooperative sees here that it is one: this code, with this network's token,
/// registry and escrow.
interface ICooperativeFactory {
    event CooperativeCreated(address indexed cooperative, address indexed node, address indexed creator);

    /// @notice Creates a cooperative. Anyone may; it gives its creator no rights.
    function create(ICooperative.Terms calldata terms) external returns (ICooperative cooperative);

    /// @notice Whether this factory created it.
    function isCooperative(address cooperative) external view returns (bool);
}
