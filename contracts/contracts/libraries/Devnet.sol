// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title What is a development chain
/// @notice On Ganache's and Anvil's chain ids, and nowhere else, the shortest delays may be a second and a faucet may
/// exist. The product refuses its devnet keys off the same ids.
library Devnet {
    function isDevnet() internal view returns (bool) {
        return block.chainid == 1337 || block.chainid == 31337;
    }
}
