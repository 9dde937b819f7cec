// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title What Corolla's contracts need of Nectar beyond ERC-20
/// @notice Nectar pays for work and is staked by nodes. Its supply can never exceed `MAX_SUPPLY`.
interface INectarToken {
    /// @notice `account` is not the faucet.
    error NotMinter(address account);
    /// @notice A faucet was asked for on a chain that is not a devnet.
    error FaucetOnlyOnDevnet(uint256 chainId);

    /// @notice Makes `amount` new tokens for `to`. Only the devnet's faucet may, and never beyond `MAX_SUPPLY`.
    function mint(address to, uint256 amount) external;

    /// @notice The faucet of a devnet; the zero address on every other chain, where nothing can be minted.
    // The getter of an immutable, which is named as the constant it is.
    // slither-disable-next-line naming-convention
    function MINTER() external view returns (address);
}
