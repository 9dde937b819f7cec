// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";
import {ERC20Votes} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Votes.sol";
import {Nonces} from "@openzeppelin/contracts/utils/Nonces.sol";
import {INectarToken} from "../interfaces/INectarToken.sol";
import {Devnet} from "./libraries/Devnet.sol";

/// @title Nectar
/// @notice ERC-20 with permits, votes and burning. The supply is made once, for the treasury; only a devnet has a
/// faucet, and that too stops at `MAX_SUPPLY`.
contract NectarToken is INectarToken, ERC20, ERC20Permit, ERC20Votes, ERC20Burnable {
    /// @notice A thousand million tokens: below 2**96, so that stakes pack into a storage slot.
    uint256 public constant MAX_SUPPLY = 1e9 * 1e18;

    /// @inheritdoc INectarToken
    // An immutable, named as the constant it is, OpenZeppelin's habit.
    // slither-disable-next-line naming-convention
    address public immutable MINTER;

    /// @param treasury gets `supply`
    /// @param supply at most `MAX_SUPPLY`
    /// @param minter the devnet's faucet; must be zero on any other chain
    constructor(address treasury, uint256 supply, address minter) ERC20("Nectar", "NCTR") ERC20Permit("Nectar") {
        if (minter != address(0) && !Devnet.isDevnet()) revert FaucetOnlyOnDevnet(block.chainid);
        // Zero is the ordinary value: no faucet.
        // slither-disable-next-line missing-zero-check
        MINTER = minter;
        _mint(treasury, supply);
    }

    /// @inheritdoc INectarToken
    function mint(address to, uint256 amount) external {
        if (msg.sender != MINTER) revert NotMinter(msg.sender);
        _mint(to, amount);
    }

    function nonces(address owner) public view override(ERC20Permit, Nonces) returns (uint256) {
        return super.nonces(owner);
    }

    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Votes) {
        super._update(from, to, value);
    }

    // ERC20Votes calls this override from _update.
    // slither-disable-next-line dead-code
    function _maxSupply() internal pure override returns (uint256) {
        return MAX_SUPPLY;
    }
}
