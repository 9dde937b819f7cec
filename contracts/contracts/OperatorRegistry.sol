// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {EnumerableSet} from "@openzeppelin/contracts/utils/structs/EnumerableSet.sol";
import {IOperatorRegistry} from "../interfaces/IOperatorRegistry.sol";

/// @title Whom a consortium knows
/// @notice See IOperatorRegistry.
contract OperatorRegistry is IOperatorRegistry, Ownable2Step {
    using EnumerableSet for EnumerableSet.AddressSet;

    uint64 public constant MAX_DURATION = 730 days;

    mapping(address account => Attestation) private _attestations;
    EnumerableSet.AddressSet private _accounts;

    constructor(address consortium) Ownable(consortium) {}

    // Attestations hold for days and are compared with the block's time, which a proposer moves by seconds at most.
    // slither-disable-start timestamp

    /// @inheritdoc IOperatorRegistry
    function attest(address account, bytes32 metadata, uint64 expiry) external onlyOwner {
        if (account == address(0)) revert AccountIsZero();
        if (metadata == bytes32(0)) revert MetadataIsZero();
        uint64 latest = uint64(block.timestamp) + MAX_DURATION;
        if (expiry <= block.timestamp || expiry > latest) {
            revert ExpiryOutOfRange(uint64(block.timestamp) + 1, latest, expiry);
        }
        _attestations[account] = Attestation(metadata, expiry);
        // Whether it is new does not matter.
        // slither-disable-next-line unused-return
        _accounts.add(account);
        emit Attested(account, metadata, expiry);
    }

    /// @inheritdoc IOperatorRegistry
    function revoke(address account) external onlyOwner {
        if (!_accounts.remove(account)) revert NotAttested(account);
        _attestations[account].expiry = 0;
        emit Revoked(account);
    }

    /// @inheritdoc IOperatorRegistry
    function isAttested(address account) public view returns (bool) {
        return _attestations[account].expiry >= block.timestamp;
    }

    // slither-disable-end timestamp

    /// @inheritdoc IOperatorRegistry
    function areAttested(address[] calldata asked) external view returns (bool[] memory attested) {
        attested = new bool[](asked.length);
        for (uint256 i = 0; i < asked.length; ++i) {
            attested[i] = isAttested(asked[i]);
        }
    }

    /// @inheritdoc IOperatorRegistry
    function accounts() external view returns (address[] memory) {
        return _accounts.values();
    }

    /// @inheritdoc IOperatorRegistry
    function attestation(address account) external view returns (Attestation memory) {
        return _attestations[account];
    }
}
