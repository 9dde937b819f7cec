// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Which weights a model's name stands for
/// @notice A model is a name with numbered versions, from 1. A version is immutable: the root of its manifest, one
/// weight root for each block, and the numeric classes it may be served in. The first to publish a name owns it.
interface IModelRegistry {
    /// @notice One version of a model.
    /// @param manifestRoot root of the manifest; receipts call it `model_root`
    /// @param publishedAt Unix seconds
    /// @param deprecated the owner advises against it; it stays readable
    /// @param blockRoots SHA-256 weight root of each block, first block first
    /// @param numericClasses keccak256 of each class's name ("fp32", "bf16", …), as in a receipt
    struct ModelVersion {
        bytes32 manifestRoot;
        uint64 publishedAt;
        bool deprecated;
        bytes32[] blockRoots;
        bytes32[] numericClasses;
    }

    event ModelPublished(
        bytes32 indexed modelId, uint256 indexed version, bytes32 indexed manifestRoot, string name, address owner
    );
    event ModelDeprecated(bytes32 indexed modelId, uint256 indexed version);
    event ModelTransferred(bytes32 indexed modelId, address indexed from, address indexed to);

    error NameLengthInvalid(uint256 length);
    error BlockCountInvalid(uint256 count);
    error NumericClassCountInvalid(uint256 count);
    error RootIsZero();
    error OwnerIsZero();
    error NotModelOwner(bytes32 modelId, address account);
    error VersionUnknown(bytes32 modelId, uint256 version);
    error BlockUnknown(bytes32 modelId, uint256 version, uint256 blockIndex);
    error AlreadyDeprecated(bytes32 modelId, uint256 version);

    /// @notice Publishes the next version of `name`, and takes the name if it is free.
    /// @param name 1 to 96 bytes; the model's id is its keccak256
    /// @param manifestRoot not zero
    /// @param blockRoots 1 to 512 roots, none zero
    /// @param numericClasses 1 to 16 hashes
    function publish(
        string calldata name,
        bytes32 manifestRoot,
        bytes32[] calldata blockRoots,
        bytes32[] calldata numericClasses
    ) external returns (bytes32 modelId, uint256 version);

    /// @notice Marks a version as one not to use any more. The model's owner only.
    function deprecate(bytes32 modelId, uint256 version) external;

    /// @notice Hands a model's name to another account. The model's owner only.
    function transferModel(bytes32 modelId, address to) external;

    /// @notice The newest version that is not deprecated. Reverts with `VersionUnknown(modelId, 0)` if there is none.
    function latest(bytes32 modelId) external view returns (uint256 version, ModelVersion memory model);

    /// @notice One version, deprecated or not.
    function versionOf(bytes32 modelId, uint256 version) external view returns (ModelVersion memory);

    /// @notice How many versions were published.
    function versionCount(bytes32 modelId) external view returns (uint256);

    /// @notice The weight root of one block.
    function blockRoot(bytes32 modelId, uint256 version, uint256 blockIndex) external view returns (bytes32);

    /// @notice Who may publish under the name; zero when it is free.
    function ownerOf(bytes32 modelId) external view returns (address);

    /// @notice keccak256 of the name.
    function modelIdOf(string calldata name) external pure returns (bytes32);
}
