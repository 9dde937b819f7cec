// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Whom a consortium knows
/// @notice The owner (a consortium's multisig or timelock) attests accounts: nodes that serve a private swarm, and the
/// clients and validators it serves. Who runs the account is in a document off chain, of which this keeps the hash.
interface IOperatorRegistry {
    /// @param metadata hash of what the consortium keeps about the account; never zero where it was ever attested
    /// @param expiry the attestation holds up to and including this second; 0 when revoked
    struct Attestation {
        bytes32 metadata;
        uint64 expiry;
    }

    event Attested(address indexed account, bytes32 metadata, uint64 expiry);
    event Revoked(address indexed account);

    error AccountIsZero();
    error MetadataIsZero();
    error ExpiryOutOfRange(uint64 earliest, uint64 latest, uint64 offered);
    error NotAttested(address account);

    /// @notice Attests an account, or renews it with what the arguments say. Owner only.
    /// @param expiry in the future, at most `MAX_DURATION` ahead: nobody stays known by being forgotten
    function attest(address account, bytes32 metadata, uint64 expiry) external;

    /// @notice Ends an attestation at once. Owner only.
    function revoke(address account) external;

    function isAttested(address account) external view returns (bool);

    /// @notice `isAttested` of each, in their order.
    function areAttested(address[] calldata asked) external view returns (bool[] memory attested);

    /// @notice All that were attested and not revoked since, expired ones included. For reading off chain.
    function accounts() external view returns (address[] memory);

    function attestation(address account) external view returns (Attestation memory);
}
