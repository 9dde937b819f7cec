// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {IOperatorRegistry} from "../interfaces/IOperatorRegistry.sol";

/// @title Whom a consortium knows
/// @notice See IOperatorRegistry.
contract OperatorRegistry is IOperatorRegistry, Ownable2Step {
    uint64 public constant MAX_DURATION = 730 days;

    mapping(address account => Attestation) private _attestations;

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
        emit Attested(account, metadata, expiry);
    }

    /// @inheritdoc IOperatorRegistry
    function revoke(address account) external onlyOwner {
        if (_attestations[account].expiry == 0) revert NotAttested(account);
        _attestations[account].expiry = 0;
        emit Revoked(account);
    }

    /// @inheritdoc IOperatorRegistry
    function isAttested(address account) external view returns (bool) {
        return _attestations[account].expiry >= block.timestamp;
    }

    // slither-disable-end timestamp

    /// @inheritdoc IOperatorRegistry
    function attestation(address account) external view returns (Attestation memory) {
        return _attestations[account];
    }
}
