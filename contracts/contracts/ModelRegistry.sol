// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelRegistry} from "../interfaces/IModelRegistry.sol";

/// @title Registry of models and their weights
/// @notice See IModelRegistry.
contract ModelRegistry is IModelRegistry {
    uint256 public constant MAX_NAME = 96;
    uint256 public constant MAX_BLOCKS = 512;
    uint256 public constant MAX_CLASSES = 16;

    mapping(bytes32 modelId => address) private _owners;
    mapping(bytes32 modelId => ModelVersion[]) private _versions;

    /// @inheritdoc IModelRegistry
    function publish(
        string calldata name,
        bytes32 manifestRoot,
        bytes32[] calldata blockRoots,
        bytes32[] calldata numericClasses
    ) external returns (bytes32 modelId, uint256 version) {
        uint256 length = bytes(name).length;
        if (length == 0 || length > MAX_NAME) revert NameLengthInvalid(length);
        if (blockRoots.length == 0 || blockRoots.length > MAX_BLOCKS) revert BlockCountInvalid(blockRoots.length);
        if (numericClasses.length == 0 || numericClasses.length > MAX_CLASSES) {
            revert NumericClassCountInvalid(numericClasses.length);
        }
        if (manifestRoot == bytes32(0)) revert RootIsZero();
        for (uint256 i = 0; i < blockRoots.length; ++i) {
            if (blockRoots[i] == bytes32(0)) revert RootIsZero();
        }

        modelId = modelIdOf(name);
        address owner = _owners[modelId];
        if (owner == address(0)) _owners[modelId] = msg.sender;
        else if (owner != msg.sender) revert NotModelOwner(modelId, msg.sender);

        ModelVersion storage model = _versions[modelId].push();
        model.manifestRoot = manifestRoot;
        model.publishedAt = uint64(block.timestamp);
        model.blockRoots = blockRoots;
        model.numericClasses = numericClasses;
        version = _versions[modelId].length;
        emit ModelPublished(modelId, version, manifestRoot, name, msg.sender);
    }

    /// @inheritdoc IModelRegistry
    function deprecate(bytes32 modelId, uint256 version) external {
        _onlyModelOwner(modelId);
        ModelVersion storage model = _version(modelId, version);
        if (model.deprecated) revert AlreadyDeprecated(modelId, version);
        model.deprecated = true;
        emit ModelDeprecated(modelId, version);
    }

    /// @inheritdoc IModelRegistry
    function transferModel(bytes32 modelId, address to) external {
        _onlyModelOwner(modelId);
        if (to == address(0)) revert OwnerIsZero();
        _owners[modelId] = to;
        emit ModelTransferred(modelId, msg.sender, to);
    }

    /// @inheritdoc IModelRegistry
    function latest(bytes32 modelId) external view returns (uint256 version, ModelVersion memory model) {
        ModelVersion[] storage versions = _versions[modelId];
        for (version = versions.length; version > 0; --version) {
            if (!versions[version - 1].deprecated) return (version, versions[version - 1]);
        }
        revert VersionUnknown(modelId, 0);
    }

    /// @inheritdoc IModelRegistry
    function versionOf(bytes32 modelId, uint256 version) external view returns (ModelVersion memory) {
        return _version(modelId, version);
    }

    /// @inheritdoc IModelRegistry
    function versionCount(bytes32 modelId) external view returns (uint256) {
        return _versions[modelId].length;
    }

    /// @inheritdoc IModelRegistry
    function blockRoot(bytes32 modelId, uint256 version, uint256 blockIndex) external view returns (bytes32) {
        bytes32[] storage roots = _version(modelId, version).blockRoots;
        if (blockIndex >= roots.length) revert BlockUnknown(modelId, version, blockIndex);
        return roots[blockIndex];
    }

    /// @inheritdoc IModelRegistry
    function ownerOf(bytes32 modelId) external view returns (address) {
        return _owners[modelId];
    }

    /// @inheritdoc IModelRegistry
    function modelIdOf(string calldata name) public pure returns (bytes32) {
        return keccak256(bytes(name));
    }

    function _version(bytes32 modelId, uint256 version) private view returns (ModelVersion storage) {
        ModelVersion[] storage versions = _versions[modelId];
        if (version == 0 || version > versions.length) revert VersionUnknown(modelId, version);
        return versions[version - 1];
    }

    function _onlyModelOwner(bytes32 modelId) private view {
        if (_owners[modelId] != msg.sender) revert NotModelOwner(modelId, msg.sender);
    }
}
